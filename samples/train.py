"""A training loop that goes NaN: a softmax written by hand, and one input that nobody normalised.

`nanhunt run samples/train.py` names the line.
"""

import torch

ROWS, FEATURES, CLASSES = 8, 4, 5


def softmax(x: torch.Tensor) -> torch.Tensor:
    """As in the articles: exp, divided by its sum."""
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean of -log p over the labels."""
    p = softmax(logits)
    return -torch.log(p[torch.arange(len(labels)), labels]).mean()


def main() -> None:
    """Ten steps on random numbers."""
    torch.manual_seed(0)
    model = torch.nn.Linear(FEATURES, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, 11):
        inputs, labels = torch.rand(ROWS, FEATURES), torch.arange(ROWS) % CLASSES
        if step == 7:
            inputs[3] *= 1000
        loss = cross_entropy(model(inputs), labels)
        print(f"step {step}: loss {loss.item():.2f}", flush=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
