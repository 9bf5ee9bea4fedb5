import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.finetuning.network import Network, cut, mixed
from pipeline.finetuning.prepare import Float32, FoldedConv, fold, sharing, spare_depthwise

SIDE = 64


def network(loaded, asked: str = "layer4", *, train_bn: bool = False, l2: bool = False) -> Network:
    torch.manual_seed(0)
    return Network(
        loaded.module, loaded.preprocess, layer="feature", pool="own",
        cut=cut(loaded.module, asked, layer="feature"), head=nn.Linear(loaded.module.dim, 3),
        l2=l2, train_bn=train_bn,
    )  # fmt: skip


def crops(count: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def activation(net: Network, count: int = 4) -> torch.Tensor:
    x = (crops(count).float() - net.body.mean) / net.body.std
    if net.cut.after == "pixels":
        return crops(count)
    with torch.no_grad():
        for name, stage in net.body.trunk.stages.items():
            x = stage(x)
            if name == net.cut.after:
                break
    return x


def sha(tensors) -> str:
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(name.encode() + value.detach().numpy().tobytes())
    return total.hexdigest()


def step(net: Network, run: Network | None = None) -> None:
    run = run or net
    run.train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    F.cross_entropy(run(activation(net)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0"])
def test_what_is_frozen_keeps_parameters_and_buffers_whatever_train_does(trunk, name):
    net = network(trunk(name))
    learns = set(net.learned())

    def frozen():
        state = net.body.trunk.state_dict()
        return {k: v.clone() for k, v in state.items() if f"trunk.{k}" not in learns}

    before, moving = sha(frozen()), sha(net.learned())
    net.train()
    net.body.trunk.train()  # a loop that calls it on every module
    net.train()
    step(net)
    assert sha(frozen()) == before
    assert sha(net.learned()) != moving


def test_only_the_learning_batchnorms_follow_their_batches_and_only_when_asked(trunk):
    net = network(trunk(), train_bn=True)
    stats = {k: v.clone() for k, v in net.body.trunk.state_dict().items() if "running" in k}
    step(net)
    now = net.body.trunk.state_dict()
    moved = {k for k, v in stats.items() if not torch.equal(v, now[k])}
    assert moved and all(k.startswith("stages.layer4.") for k in moved)
    assert {f"trunk.{k}" for k in moved} <= set(net.learned())


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])  # the second has dropout
def test_statistics_are_the_mean_of_those_of_batches_and_nothing_is_drawn(trunk, name):
    net = network(trunk(name), train_bn=True)
    batches = [activation(net, count) for count in (4, 6)]
    seen: dict[str, list[torch.Tensor]] = {}
    norms = {k: m for k, m in net.named_modules() if hasattr(m, "running_mean")}
    for key, norm in norms.items():
        norm.register_forward_pre_hook(
            lambda _, given, key=key: seen.setdefault(key, []).append(given[0].detach())
        )
    before = {k: (m.running_mean.clone(), m.momentum) for k, m in norms.items()}
    torch.manual_seed(0)
    drawn = torch.get_rng_state()
    net.take_statistics(iter(batches))
    assert torch.equal(torch.get_rng_state(), drawn)
    learns = {k for k in seen if k.startswith("body.trunk.stages.layer4.")}
    assert learns and not any(m.training for m in net.modules())
    for key, norm in norms.items():
        assert norm.momentum == before[key][1]
        if key in learns:
            means = [x.mean((0, 2, 3)) for x in seen[key]]
            assert torch.allclose(norm.running_mean, sum(means) / 2, atol=1e-5), key
        else:
            assert torch.equal(norm.running_mean, before[key][0]), key


def test_training_mode_reaches_the_unfrozen_places_alone(trunk):
    net = network(trunk("efficientnet_b0"))
    net.train()
    for place in net.body.trunk.stages:
        modes = {
            m.training
            for m in net.body.trunk.stages[place].modules()
            if not hasattr(m, "running_mean")
        }
        assert modes == {place == "layer4"}
    norms = [m for m in net.modules() if hasattr(m, "running_mean")]
    assert not any(m.training for m in norms)
    assert not net.eval().body.trunk.stages["layer4"].training


def test_a_named_module_alone_gets_into_training_mode(trunk):
    net = network(trunk(), "layer4.1")
    net.train()
    stage = net.body.trunk.stages["layer4"]
    training = {name for name, m in stage.named_modules() if m.training and name}
    assert training and all(name.startswith("layer4.1") for name in training)


def test_the_suffix_gives_what_the_whole_network_gives(trunk):
    whole = network(trunk(), "all")
    part = network(trunk(), "layer4")
    with torch.no_grad():
        assert torch.allclose(whole(crops()), part(activation(part)), atol=1e-5)


def test_a_feature_of_length_one_goes_into_the_head_where_the_head_wants_it(trunk):
    net = network(trunk(), "none", l2=True)
    features = torch.randn(4, 512) * 7
    with torch.no_grad():
        assert torch.allclose(net(features), net.head(F.normalize(features, dim=1)))


def test_centring_changes_no_logit_and_what_is_stored_has_none(trunk):
    loaded = trunk()
    plain = network(loaded, "none")
    torch.manual_seed(0)
    centred = Network(
        loaded.module, loaded.preprocess, layer="feature", pool="own", cut=plain.cut,
        head=nn.Linear(loaded.module.dim, 3), centre=torch.rand(loaded.module.dim),
    )  # fmt: skip
    features = torch.rand(5, loaded.module.dim)
    with torch.no_grad():
        assert torch.allclose(plain(features), centred(features), atol=1e-5)
    for name, value in plain.head.state_dict().items():
        assert torch.allclose(centred.plain_head()[name], value, atol=1e-5)


def test_the_suffix_is_what_is_stored_and_no_more(trunk):
    names = network(trunk(), "layer4").suffix()
    assert names and all(name.startswith("stages.layer4.") for name in names)
    assert network(trunk(), "none").suffix() == {}
    net = network(trunk(), "all")
    assert set(net.suffix()) == set(net.body.trunk.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "vgg11_bn"])
def test_folding_changes_neither_the_outputs_nor_the_gradients(trunk, name):
    net = network(trunk(name))
    run = fold(net, activation(net, 2))
    x, labels = activation(net), torch.tensor([0, 1, 2, 0])
    grads = []
    for module in (net, run):
        module.train(name != "vgg11_bn")  # its neck has dropout, frozen here all the same
        net.zero_grad()
        out = module(x)
        F.cross_entropy(out, labels).backward()
        found = [p.grad.clone() for p in net.parameters() if p.requires_grad]
        grads.append((out.detach(), found))
    assert torch.allclose(grads[0][0], grads[1][0], atol=1e-4)
    for one, other in zip(grads[0][1], grads[1][1], strict=True):
        assert (one - other).norm() <= 1e-3 * one.norm() + 1e-6


def test_folding_shares_every_tensor_so_that_steps_reach_the_network(trunk):
    net = network(trunk())
    run = fold(net, activation(net, 2))
    assert run is not net and any(isinstance(m, FoldedConv) for m in run.modules())
    assert {p.data_ptr() for p in run.parameters()} == {p.data_ptr() for p in net.parameters()}
    before = sha(net.learned())
    step(net, run)
    assert sha(net.learned()) != before
    with torch.no_grad():
        assert torch.allclose(net.eval()(activation(net)), run.eval()(activation(net)), atol=1e-4)


def test_a_network_that_folding_would_change_is_left_alone():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.norm.running_mean += 1

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y  # the convolution's own output is used too

    net = Twice().eval()
    assert fold(net, torch.randn(2, 3, 8, 8)) is net


def test_depthwise_convolutions_are_spared_bfloat16_and_no_others(trunk):
    net = network(trunk("mobilenet_v2"))
    run = fold(sharing(net), activation(net, 2))
    spare_depthwise(run)
    spared = [m.inner for m in run.modules() if isinstance(m, Float32)]
    convs = [getattr(m, "conv", m) for m in spared]
    assert spared and all(conv.groups == conv.in_channels for conv in convs)
    inside = {id(m) for wrapped in spared for m in wrapped.modules()}
    left = [m for m in run.modules() if isinstance(m, nn.Conv2d) and id(m) not in inside]
    assert left and all(conv.groups == 1 for conv in left)
    x = activation(net)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(run(x), net(x), rtol=0.1, atol=0.1)
    assert not any(isinstance(m, Float32) for m in net.modules())


def test_mixing_gives_each_image_a_share_of_its_own_and_labels_alike():
    x, labels = torch.randn(8, 256, 4, 4), torch.arange(8) % 3
    torch.manual_seed(1)
    images, targets = mixed(x, labels, 0.4, 3)
    torch.manual_seed(1)
    share = torch.distributions.Beta(0.4, 0.4).sample((8,))
    other = torch.randperm(8)
    want = share[:, None, None, None] * x + (1 - share[:, None, None, None]) * x[other]
    assert torch.allclose(images, want, atol=1e-6) and len(share.unique()) == 8
    assert torch.allclose(targets.sum(1), torch.ones(8))
    for row in range(8):
        expected = torch.zeros(3)
        expected[labels[row]] += share[row]
        expected[labels[other[row]]] += 1 - share[row]
        assert torch.allclose(targets[row], expected, atol=1e-6)
    assert mixed(x, labels, 0.0, 3) == (x, labels)
