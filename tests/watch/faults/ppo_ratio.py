"""The ratio of a policy update: exp of a difference of log-probabilities that has grown."""

# says: bound the argument of exp
# says: a difference
# never: F.cross_entropy
import torch

torch.manual_seed(0)
policy = torch.nn.Linear(4, 3)
with torch.no_grad():
    policy.weight.mul_(300)
states, actions = torch.randn(8, 4), torch.randint(0, 3, (8,))
old = torch.full((8,), -200.0)
new = torch.log_softmax(policy(states), -1).gather(1, actions[:, None])[:, 0]
ratio = (new - old).exp()  # <- fault: op=exp phase=forward
advantage = -torch.ones(8)
loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
loss.backward()
