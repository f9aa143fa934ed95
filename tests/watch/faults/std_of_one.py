"""The advantages of a group of one: the standard deviation of one value is 0 / 0."""

# says: one value
# says: correction=min(1, rewards.shape[-1] - 1)
# never: Check the range
import torch

torch.manual_seed(0)
policy = torch.nn.Linear(4, 1)
rewards = policy(torch.randn(6, 4)).reshape(6, 1)
spread = rewards.std(-1, keepdim=True)  # <- fault: op=std phase=forward
loss = ((rewards - rewards.mean(-1, keepdim=True)) / spread).mean()
loss.backward()
