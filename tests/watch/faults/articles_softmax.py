"""The articles' softmax in a training loop: a learning rate too high lets the logits grow past 88.7."""

# cause: learning rate
import torch


def softmax_naive(x):
    e = torch.exp(x)  # <- fault: op=exp rule=NH101 phase=forward
    return e / e.sum(dim=-1, keepdim=True)


torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=30.0)
for _ in range(50):
    x, labels = torch.randn(32, 16), torch.randint(0, 10, (32,))
    probabilities = softmax_naive(model(x))
    loss = -torch.log(probabilities[torch.arange(32), labels]).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
