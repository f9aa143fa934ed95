"""CTC cannot spell six symbols in four frames: its loss is inf, whatever the learning rate."""

# cause: data
# says: (tensors of that operation)
# says: sample 1 has 6 labels (0 of them repeated) in 4 frames
# says: zero_infinity=True
# never: learning rate
# never: overflow
import torch
import torch.nn.functional as F

torch.manual_seed(0)
model = torch.nn.Linear(8, 10)
log_p = model(torch.randn(7, 3, 8)).log_softmax(-1)
targets = torch.tensor([[1, 2, 3, 0, 0, 0], [1, 2, 3, 4, 5, 6], [1, 2, 0, 0, 0, 0]])
frames, lengths = torch.tensor([7, 4, 7]), torch.tensor([3, 6, 2])
loss = F.ctc_loss(log_p, targets, frames, lengths, reduction="sum")  # <- fault: op=ctc_loss phase=forward
loss.backward()
