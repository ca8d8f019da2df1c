"""Learned features for a circuit in place of pooled pixels: principal components, or a variational autoencoder's code.

Baselines of the paper (arXiv:2410.23940). Fitted on the training part alone and scaled by it, (c(x) - mean)/std or
(c(x) - min)/(max - min), with the component scores c(x) = V (x - x̄), or with the encoder's latent mean c(x) = μ(x).

The scale decides what a circuit makes of them. Expectation values are even in the amplitudes, so that centered features
lose their common sign; angles of several standard deviations wind around. On MNIST-4 the range [0, 1] is far better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qiskit_qdeq.data.split import DataSplit, FloatArray
from qiskit_qdeq.exceptions import ConvergenceError, InputError, MissingExtraError

SCALINGS = ("standard", "range")
_HIDDEN = 256
_BATCH = 256
_LEARNING_RATE = 1e-3
_BLOCK = 4096


def pca_features(split: DataSplit, num_features: int, *, scaling: str = "standard") -> DataSplit:
    """The leading principal components of a split.

    Args:
        split: for example all pixels, ``load_split(..., pooled=False)``.
        num_features: components kept, in the order of their variance.
        scaling: "standard", mean 0 and standard deviation 1 on the training part, or "range", from 0 to 1 on it.

    Returns:
        The same samples and labels with ``num_features`` features each.

    Raises:
        InputError: for an unknown scaling, or for more components than the training part has features or samples.

    >>> from qiskit_qdeq.data import load_split
    >>> pca_features(load_split("digits", pooled=False), 16)
    DataSplit(digits (PCA), 4x4 features, classes 0, 3, 6, 9, 434 train, 108 valid, 180 test)
    """
    _check(split, num_features, scaling)
    if num_features > len(split.x_train):
        raise InputError(
            f"num_features={num_features} is more than the {len(split.x_train)} training samples: keep more samples or "
            "fewer components"
        )
    from sklearn.decomposition import PCA

    # the covariance is as small as the images; the samples are never copied for it
    fitted = PCA(num_features, svd_solver="covariance_eigh").fit(split.x_train)
    return _scaled(split, fitted.transform, scaling, "PCA")


def vae_features(
    split: DataSplit, num_features: int, *, seed: int = 0, epochs: int = 10, scaling: str = "standard"
) -> DataSplit:
    """The latent mean of a small variational autoencoder trained on the training part.

    Encoder D → 256 → (μ, log σ²), decoder latent → 256 → D, ReLU between; it maximizes the evidence lower bound of
    p(x|z) = N(decoder(z), 1), so that its loss per sample is ‖x - decoder(μ + σ ε)‖²/2 + KL(N(μ, σ²) ‖ N(0, 1)) (Kingma
    and Welling 2014), by Adam, rate 1e-3, 256 samples per step. Labels are not used.

    PyTorch works on as many threads as it is set to (``OMP_NUM_THREADS``); its global random state is left as it was. The
    same seed gives the same features on the same machine and number of threads.

    Args:
        split: for example all pixels, ``load_split(..., pooled=False)``, whose normalized values suit unit variance.
        num_features: latent dimensions.
        seed: of initial parameters, sample order and noise.
        epochs: passes over the training part.
        scaling: "standard" or "range", see `pca_features`.

    Returns:
        The same samples and labels with ``num_features`` features each.

    Raises:
        InputError: for an argument that is not usable.
        ConvergenceError: if training diverges, as it may on features of another scale.
        MissingExtraError: if PyTorch is not installed.
    """
    _check(split, num_features, scaling)
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise InputError(f"epochs={epochs!r} must be a whole number of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"seed={seed!r} must be a whole number from 0 to 2^63 - 1")
    torch = _torch()
    # the modules draw their first parameters from the global state only
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        encoder, decoder = _modules(torch, split.num_features, num_features)
        _train(torch, encoder, decoder, split.x_train, epochs)

    def latent_mean(x: FloatArray) -> FloatArray:
        with torch.no_grad():
            blocks = [x[start : start + _BLOCK].astype(np.float32) for start in range(0, len(x), _BLOCK)]
            codes = [encoder(torch.from_numpy(block))[:, :num_features].numpy() for block in blocks]
        return np.concatenate(codes).astype(np.float64)

    return _scaled(split, latent_mean, scaling, "VAE")


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            'the autoencoder needs PyTorch, which is not installed: pip install "qiskit-qdeq[torch]"'
        ) from error
    module: ModuleType = torch
    return module


def _modules(torch: Any, width: int, latent: int) -> tuple[Any, Any]:
    nn = torch.nn
    encoder = nn.Sequential(nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, width))
    return encoder, decoder


def _train(torch: Any, encoder: Any, decoder: Any, samples: FloatArray, epochs: int) -> None:
    data = torch.from_numpy(samples.astype(np.float32))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=_LEARNING_RATE)
    for epoch in range(epochs):
        for rows in torch.randperm(len(data)).split(_BATCH):
            x = data[rows]
            mean, log_variance = encoder(x).chunk(2, dim=1)
            code = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
            misfit = (x - decoder(code)).square().sum()
            divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum()
            loss = (misfit + divergence) / (2 * len(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not math.isfinite(loss.item()):
            raise ConvergenceError(
                f"the autoencoder's loss is {loss.item()} in epoch {epoch + 1}: scale the features to about [-1, 3], as "
                "normalized pixels are"
            )


def _scaled(split: DataSplit, compress: Callable[[FloatArray], NDArray[Any]], scaling: str, name: str) -> DataSplit:
    codes = {part: compress(getattr(split, f"x_{part}")) for part in ("train", "valid", "test")}
    known = codes["train"]
    if scaling == "standard":
        zero, unit = known.mean(axis=0), known.std(axis=0)
    else:
        zero, unit = known.min(axis=0), np.ptp(known, axis=0)
    # a direction without variance carries nothing: dividing by rounding errors would make it noise
    unit = np.where(unit > 1e-9 * unit.max(), unit, 1.0)
    features = {f"x_{part}": (code - zero) / unit for part, code in codes.items()}
    count = len(zero)
    side = math.isqrt(count)
    shape = (side, side) if side * side == count else (1, count)
    return replace(split, **features, name=f"{split.name} ({name})", image_shape=shape)  # type: ignore[arg-type]


def _check(split: DataSplit, num_features: int, scaling: str) -> None:
    if scaling not in SCALINGS:
        raise InputError(f"scaling={scaling!r} is not one of {', '.join(map(repr, SCALINGS))}")
    if isinstance(num_features, bool) or not isinstance(num_features, int) or num_features < 1:
        raise InputError(f"num_features={num_features!r} must be a whole number of at least 1")
    if num_features > split.num_features:
        raise InputError(f"num_features={num_features} is more than the {split.num_features} features of the split")
