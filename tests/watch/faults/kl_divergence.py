"""p log(p / q) where q has underflowed to 0."""

# says: exactly 0
# never: F.cross_entropy
import torch

torch.manual_seed(0)
student = torch.nn.Parameter(torch.tensor([[0.0, 200.0, 1.0]]))
p, q = torch.tensor([[0.3, 0.3, 0.4]]), torch.softmax(student, -1)
loss = (p * torch.log(p / q)).sum()  # <- fault: op=div phase=forward
loss.backward()
