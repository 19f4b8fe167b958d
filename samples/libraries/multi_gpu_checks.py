"""Several GPUs: peer copies, streams and events of two devices, NCCL between processes and in one. One GPU: everything is skipped."""

import os
import socket

import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
import torch.nn as nn

from sections import Skip, check, run, show

SIZE = 1 << 20


def gpus():
    count = torch.cuda.device_count()
    if count < 2:
        raise Skip("one GPU")
    return count


def devices():
    count = gpus()
    show("devices", count)
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        show(f"device {index}", properties.name, properties.total_memory, properties.pci_bus_id, properties.uuid)
        show("peers", *[torch.cuda.can_device_access_peer(index, other) for other in range(count) if other != index])


def peer_copies():
    gpus()
    torch.manual_seed(7)
    x = torch.randn(SIZE)
    a = x.to("cuda:0")
    b = a.to("cuda:1")
    check(torch.equal(b.cpu(), x), "from one device to the other")
    # Each on a stream of its own device, ordered by an event of the other.
    with torch.cuda.device(0):
        first, done = torch.cuda.Stream(), torch.cuda.Event()
        with torch.cuda.stream(first):
            for _ in range(50):
                a = a * 1.01
            done.record()
    with torch.cuda.device(1):
        second = torch.cuda.Stream()
        second.wait_event(done)
        with torch.cuda.stream(second):
            c = a.to("cuda:1", non_blocking=True) + b
        second.synchronize()
    expected = x.double() * 1.01**50 + x.double()
    check((c.double().cpu() - expected).abs().max().item() < 1e-4, "a copy after an event of the other device")
    show("sum", c.double().sum().item())


def data_parallel():
    gpus()
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8))
    x = torch.randn(32, 64)
    expected = model(x)
    parallel = nn.DataParallel(model.to("cuda:0"), device_ids=[0, 1])
    y = parallel(x.to("cuda:0"))
    check((y.cpu() - expected).abs().max().item() < 1e-4, "forward on two devices")
    y.square().mean().backward()
    show("gradient", model[0].weight.grad.double().abs().sum().item())


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def collective(rank, world, port, answers):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.cuda.set_device(rank)
    distributed.init_process_group("nccl", rank=rank, world_size=world)
    torch.manual_seed(rank)
    x = torch.randn(SIZE)
    y = x.to(f"cuda:{rank}")
    distributed.all_reduce(y)
    pieces = [torch.empty(1000, device=f"cuda:{rank}") for _ in range(world)]
    distributed.all_gather(pieces, x[:1000].to(f"cuda:{rank}"))
    if rank == 0:
        distributed.send(y[:1000], 1)
    elif rank == 1:
        got = torch.empty(1000, device="cuda:1")
        distributed.recv(got, 0)
        check(torch.equal(got, y[:1000]), "what was sent")
    answers.put((rank, y.double().sum().item(), torch.stack(pieces).double().sum().item()))
    distributed.barrier()
    distributed.destroy_process_group()


def on_two_gpus(body):
    """Runs `body` in two processes, each with a GPU of its own; what they have answered, in order."""
    world = min(gpus(), 2)
    context = multiprocessing.get_context("spawn")
    answers, port = context.Queue(), free_port()
    processes = [context.Process(target=body, args=(rank, world, port, answers), daemon=True) for rank in range(world)]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=90) for _ in processes)
    for process in processes:
        process.join(30)
        check(process.exitcode == 0, f"a process has ended with {process.exitcode}")
    return found


def nccl_processes():
    found = on_two_gpus(collective)
    expected = 0.0
    for rank, _, _ in found:
        torch.manual_seed(rank)
        expected += torch.randn(SIZE).double().sum().item()
    check(all(abs(total - expected) < 1e-2 for _, total, _ in found), f"sums {found}, expected {expected}")
    for rank, total, gathered in found:
        show(f"rank {rank}", total, gathered)


def training(rank, world, port, answers):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.cuda.set_device(rank)
    distributed.init_process_group("nccl", rank=rank, world_size=world)
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 16)).to(f"cuda:{rank}")
    model = nn.parallel.DistributedDataParallel(model, device_ids=[rank])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    torch.manual_seed(rank)
    x, target = torch.randn(64, 256, device=f"cuda:{rank}"), torch.randn(64, 16, device=f"cuda:{rank}")
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
    answers.put((rank, loss.item()))
    distributed.barrier()
    distributed.destroy_process_group()


def distributed_training():
    for rank, loss in on_two_gpus(training):
        show(f"loss of rank {rank}", loss)


SECTIONS = [devices, peer_copies, data_parallel, nccl_processes, distributed_training]

if __name__ == "__main__":
    run(SECTIONS, rtol=1e-4, atol=1e-6, isolate=True, limit_s=120)
