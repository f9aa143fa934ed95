"""log(1 - p) of a log-probability that has rounded to 0."""

# says: log1p of -1
import torch

logps = torch.nn.Parameter(torch.tensor([-0.5, -1e-9]))
odds = logps - torch.log1p(-torch.exp(logps))  # <- fault: op=log1p phase=forward
loss = -torch.nn.functional.logsigmoid(odds).mean() + odds.mean()
loss.backward()
