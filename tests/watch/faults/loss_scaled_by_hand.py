import torch

weight = torch.nn.Parameter(torch.zeros(3))
scale = torch.tensor(1024.0)
for _ in range(3):
    root = weight.sqrt()  # <- fault: op=sqrt phase=backward
    loss = root.sum()
    (loss * scale).backward()
    if weight.grad.isfinite().all():
        weight.data.sub_(weight.grad / scale)
    else:
        scale /= 2
    weight.grad = None
