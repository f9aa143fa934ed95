"""BatchNorm writes its running statistics in the failing forward: they are not where the NaN came from."""

# never: running_mean
# never: running_var
# never: held it before
import torch
import torch.nn.functional as F

torch.manual_seed(0)
layers = [torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 8)]
generator = torch.nn.Sequential(*layers, torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4))
critic = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(generator.parameters(), lr=0.01)
for step in range(3):
    noise = torch.randn(6, 4)
    if step == 2:
        noise = noise - noise
    noise = noise / noise.norm(dim=1, keepdim=True)  # <- fault: op=div phase=forward
    loss = F.softplus(-critic(generator(noise))).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
