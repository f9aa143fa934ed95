"""A classifier that ends in nn.Softmax, and a loss that takes the log."""

import torch


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 5)
        self.softmax = torch.nn.Softmax(dim=1)

    def forward(self, x):
        return self.softmax(self.layer(x))


def negative_log_likelihood(probabilities, labels):
    picked = probabilities[torch.arange(len(labels)), labels]
    return -torch.log(picked).mean()  # <- fault: op=log


torch.manual_seed(0)
model = Classifier()
loss = negative_log_likelihood(model(torch.randn(16, 8) * 500), torch.randint(0, 5, (16,)))
loss.backward()
