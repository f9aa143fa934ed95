"""The targets come from a teacher without gradients, and are NaN."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
student, teacher = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
x = torch.randn(5, 4)
with torch.no_grad():
    soft = teacher(x)
    soft = (soft - soft.max(-1, keepdim=True).values).log()  # <- fault: op=log phase=forward
loss = F.mse_loss(student(x), soft)
loss.backward()
