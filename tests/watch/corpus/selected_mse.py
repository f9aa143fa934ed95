"""A mean squared error over no boxes."""

import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(4, 4)
boxes, positive = model(torch.randn(5, 4)), torch.zeros(5, dtype=torch.bool)
loss = F.mse_loss(boxes[positive], torch.zeros(0, 4))  # <- fault: op=mse_loss
loss.backward()
