"""Knowledge distillation: KL spelled out with a teacher that is sure."""

import torch
import torch.nn as nn

torch.manual_seed(0)
teacher, student = nn.Linear(8, 5), nn.Linear(8, 5)
x = torch.randn(10, 8)
x[6] *= 150
T = 2.0
with torch.no_grad():
    p = torch.softmax(teacher(x) / T, dim=1)
q = torch.softmax(student(x) / T, dim=1)
kd = (p * (p.log() - q.log())).sum(1).mean() * T**2  # <- fault: op=log
loss = kd + 0.1 * student(x).pow(2).mean()
loss.backward()
