"""A loop that survives every Exception must not survive this."""

import torch

x = torch.nn.Parameter(torch.tensor([-1.0, 4.0]))
for _ in range(3):
    try:
        loss = torch.sqrt(x).sum()  # <- fault: op=sqrt phase=forward
        loss.backward()
    except Exception as error:
        print("skipped", error)
