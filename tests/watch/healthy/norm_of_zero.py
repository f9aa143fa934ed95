"""torch.linalg.vector_norm at 0 has gradient 0."""

import torch

x = torch.nn.Parameter(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
(torch.linalg.vector_norm(x, dim=-1).sum() + torch.nn.functional.normalize(x, dim=-1).sum()).backward()
