"""Batches from worker processes; one sample is broken."""

# cause: data
import torch
from torch.utils.data import DataLoader, Dataset


class Samples(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((3,), float("nan") if index == 6 else 1.0)


model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for batch in DataLoader(Samples(), batch_size=4, num_workers=1):
    loss = model(batch).mean()  # <- fault: input=batch phase=input
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
