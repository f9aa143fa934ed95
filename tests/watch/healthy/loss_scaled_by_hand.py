import torch

model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scale, skipped = 2.0**127, 0
for _ in range(20):
    loss = (model(torch.ones(8, 4) * 100).pow(2).mean() + 1).log()
    optimizer.zero_grad()
    (loss * scale).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    if any(not gradient.isfinite().all() for gradient in gradients):
        scale, skipped = scale / 2, skipped + 1
        continue
    for gradient in gradients:
        gradient.div_(scale)
    optimizer.step()
assert 0 < skipped < 19
