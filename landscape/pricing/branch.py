from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.optimize import lsq_linear

EPSILON = float(np.finfo(np.float64).eps)
CHUNK = 2048
SWEEPS = 6
STAT = {}


@dataclass(frozen=True)
class Supremum:
    bound: float
    attained: float
    direction: np.ndarray
    sign: int
    exact: bool
    nodes: int


def supremum(design, nu, target=None, tolerance=1e-9, nodes=200_000, verbose=False, opts={}):
    n, p = design.shape
    used = (nu != 0) & design.any(axis=1)
    X, nu = design[used], nu[used]
    size = float(np.abs(nu) @ np.linalg.norm(X, axis=1))
    _, sigma, Vt = np.linalg.svd(X, full_matrices=False)
    V = Vt[sigma > max(n, p) * EPSILON * sigma.max(initial=0)].T
    W = np.abs(nu)[:, None] * (X @ V)
    lost = float(np.linalg.norm(np.abs(nu)[:, None] * X - W @ V.T, axis=1).sum())
    r = W.shape[1]
    side = np.sign(nu)
    allowance = lost + 4 * (len(X) + p + 16) * EPSILON * size * r
    # scale
    corners = np.array(list(itertools.product([1.0, -1.0], repeat=r)))
    rays = corners[:, :, None] * np.eye(r)
    rays = np.concatenate([rays, rays])
    sign = np.repeat([1.0, -1.0], len(corners))
    tang = np.full((len(rays), len(W)), 0.5, dtype=np.float32)
    depth = np.zeros(len(rays), dtype=np.int32)
    bounds = np.full(len(rays), np.inf)
    best, where, best_sign = 0.0, np.zeros(r), 1
    goal = target if target is not None else 0.0
    closed = 0.0
    done = 0
    front = [rays, sign, tang, depth, bounds]
    STAT.clear()
    STAT.update(polish=0, rounds=0, maxdepth=0, sweeps=0, split_gap=0)
    while len(front[0]):
        order = np.argsort(-front[4])
        take, rest = order[:CHUNK], order[CHUNK:]
        if done + len(take) > nodes and done:
            break
        chunk = [a[take] for a in front]
        front = [a[rest] for a in front]
        done += len(take)
        STAT['rounds'] += 1
        bnd, f, u, kids = evaluate(chunk, W, side, lambda b: max(goal, b * (1 + tolerance)), allowance, best, opts)
        i = f.argmax()
        if f[i] > best:
            best, where, best_sign = float(f[i]), u[i], chunk[1][i]
        lim = max(goal, best * (1 + tolerance))
        closed = max(closed, min(lim, bnd[bnd <= lim].max(initial=0)))
        front = [np.concatenate(pair) for pair in zip(front, kids)]
        alive = front[4] > lim
        closed = max(closed, front[4][~alive].max(initial=0))
        front = [a[alive] for a in front]
        STAT['maxdepth'] = max(STAT['maxdepth'], int(chunk[3].max()))
        if verbose:
            print(done, len(front[0]), front[4].max(initial=0), best, lim, chunk[3].mean())
    bound = max(closed, front[4].max(initial=0))
    return Supremum(bound, best, V @ where, int(best_sign), bound <= max(goal, best * (1 + tolerance)), done)


def evaluate(chunk, W, side, limit, allowance, best, opts):
    rays, sign, tang, depth, parent = chunk
    N, r = rays.shape[:2]
    n = len(W)
    values = (rays.reshape(-1, r) @ W.T).reshape(N, r, n)
    positive = sign[:, None] * side > 0  # (N, n)
    above = np.maximum(values, 0)
    top = np.einsum("nrk,nk->nr", above, positive.astype(float))
    on, off = (values > 0).any(1), (values < 0).any(1)
    cut = on & off & ~positive
    T = np.where(cut, tang, on & ~positive).astype(float)
    # rows cut, listed
    count = cut.sum(1)
    order = np.argsort(-count, kind="stable")
    rays, sign, T, depth, parent, values, positive, top, cut, count = (
        a[order] for a in (rays, sign, T, depth, parent, values, positive, top, cut, count)
    )
    inverse = np.linalg.inv(rays)
    drag = T @ W  # (N, r)
    g = np.einsum("nij,nj->ni", inverse, top) - drag
    m = int(count.max(initial=0))
    node, row = np.nonzero(cut)
    starts = np.cumsum(count) - count
    slot = np.arange(len(node)) - starts[node]
    listed = np.zeros((m, N), dtype=np.intp)
    listed[slot, node] = row
    Y = np.ascontiguousarray(W[listed].transpose(0, 2, 1))  # (m, r, N)
    t = np.take_along_axis(T.T, listed, axis=0)
    A = np.ascontiguousarray(inverse.transpose(2, 1, 0))  # (r, r, N): A[i] column i
    mu = np.zeros((r, N))
    bound = np.full(N, np.inf)
    low = np.full(N, -np.inf)
    f_all = np.zeros(N)
    u_all = np.zeros((N, r))
    c_all = np.zeros((N, r))
    live = np.arange(N)
    G = np.ascontiguousarray(g.T)
    sq = np.maximum((Y**2).sum(1), 1e-300)
    sqA = (A**2).sum(1)
    for sweep in range(opts.get('sweeps', SWEEPS)):
        cnt = count[live]
        has = len(cnt) - np.searchsorted(cnt[::-1], np.arange(1, m + 1), side="left")
        for half in range(2):
            for i in range(r):
                step = -(G * A[i]).sum(0) / sqA[i]
                new = np.maximum(mu[i] + step, 0)
                G += A[i] * (new - mu[i])
                mu[i] = new
            for k in range(m):
                h = has[k]
                if h == 0:
                    break
                y = Y[k, :, :h]
                step = (G[:, :h] * y).sum(0) / sq[k, :h]
                new = np.clip(t[k, :h] + step, 0, 1)
                G[:, :h] -= y * (new - t[k, :h])
                t[k, :h] = new
        STAT['sweeps'] += len(live)
        # bound
        L = live
        T_L = T[L].copy()
        # put back t
        for_k = np.arange(m)[:, None] < cnt
        kk, jj = np.nonzero(for_k)
        T_L[jj, listed[kk, jj]] = t[kk, jj]
        T[L] = T_L
        gp = G.T
        Z = T_L @ W
        e = top[L] - np.einsum("nij,nj->ni", rays[L], gp + Z)
        b = np.linalg.norm(gp, axis=1) + np.sqrt(r) * np.maximum(e, 0).max(1)
        b = b * (1 + 64 * EPSILON) + allowance * (1 + depth[L] / 10)
        bound[L] = np.minimum(bound[L], b)
        # primal
        u = gp / np.maximum(np.linalg.norm(gp, axis=1), 1e-300)[:, None]
        c = np.maximum(np.einsum("nj,nji->ni", u, inverse[L]), 0)
        u = np.einsum("ni,nij->nj", c, rays[L])
        norm = np.maximum(np.linalg.norm(u, axis=1), 1e-300)
        u /= norm[:, None]
        c /= norm[:, None]
        vals = np.maximum(u @ W.T, 0)
        neg = (vals * ~positive[L]).sum(1)
        pos = (vals * positive[L]).sum(1)
        lo = (c * top[L]).sum(1) - neg
        f = pos - neg
        better = f > f_all[L]
        f_all[L] = np.where(better, f, f_all[L])
        u_all[L[better]] = u[better]
        c_all[L] = c
        low[L] = np.maximum(low[L], lo)
        best = max(best, f.max(initial=0))
        lim = limit(best)
        keep = (bound[L] > lim) & (low[L] <= lim)
        if not keep.any() or sweep == opts.get('sweeps', SWEEPS) - 1:
            break
        live = L[keep]
        G, Y, t, A, mu, listed, sq, sqA = (np.ascontiguousarray(a[..., keep]) for a in (G, Y, t, A, mu, listed, sq, sqA))
        m = int(count[live].max(initial=0))
        Y, t, listed, sq = Y[:m], t[:m], listed[:m], sq[:m]
    lim = limit(best)
    split = np.flatnonzero(bound > lim)
    gap = np.minimum(low[split], np.inf)
    # exact nodes: polish
    exact = (top[split].sum(1) - np.maximum(values[split].sum(1), 0)[..., :].__mul__(positive[split]).sum(1)) <= 1e-14 * np.abs(W).sum()
    for j in split[exact]:
        STAT['polish'] += 1
        rows = np.flatnonzero(cut[j])
        Aj = np.hstack([W[rows].T, -inverse[j]])
        base = inverse[j] @ top[j] - (T[j] * ~cut[j]) @ W
        if len(rows) == 0:
            lo_, hi_ = np.zeros(r), np.full(r, np.inf)
        lo_ = np.zeros(len(rows) + r)
        hi_ = np.r_[np.ones(len(rows)), np.full(r, np.inf)]
        res = lsq_linear(Aj, base, (lo_, hi_), method="bvls", tol=1e-15)
        T[j, rows] = np.clip(res.x[: len(rows)], 0, 1)
        gp = base - Aj @ res.x
        e = top[j] - rays[j] @ (gp + T[j] @ W)
        b = np.linalg.norm(gp) + np.sqrt(r) * max(e.max(), 0)
        bound[j] = min(bound[j], b * (1 + 64 * EPSILON) + allowance * (1 + depth[j] / 10))
        c = np.maximum(gp @ inverse[j], 0)
        u = c @ rays[j]
        u /= np.linalg.norm(u)
        vals = np.maximum(u @ W.T, 0)
        f = (vals * np.where(positive[j], 1, -1)).sum()
        if f > f_all[j]:
            f_all[j], u_all[j] = f, u
        best = max(best, f)
    lim = limit(best)
    split = np.flatnonzero(bound > lim)
    STAT['split_gap'] += int((low[split] <= lim).sum())
    # split
    pairs = np.array(list(itertools.combinations(range(r), 2)), dtype=int).reshape(-1, 2)
    S = len(split)
    if S and len(pairs):
        v, c, posf = values[split], c_all[split], positive[split].astype(float)
        score = np.empty((S, len(pairs)))
        for q, (i, j) in enumerate(pairs):
            joint = np.einsum("nk,nk->n", np.maximum(v[:, i] + v[:, j], 0), posf)
            gain = top[split, i] + top[split, j] - joint
            edge = np.linalg.norm(rays[split, i] - rays[split, j], axis=1)
            score[:, q] = np.minimum(c[:, i], c[:, j]) * gain + opts.get('edge', 1e-3) * edge * best
            if opts.get('rule') == 'long':
                score[:, q] = edge
        which = pairs[score.argmax(1)]
        a, b_ = which[:, 0], which[:, 1]
        ar = np.arange(S)
        ca, cb = c[ar, a], c[ar, b_]
        w = np.clip(ca / np.maximum(ca + cb, 1e-300), opts.get('clip', 0.3), 1 - opts.get('clip', 0.3))
        w = np.where(ca + cb > 0, w, 0.5)
        mid = w[:, None] * rays[split, a] + (1 - w)[:, None] * rays[split, b_]
        mid /= np.linalg.norm(mid, axis=1, keepdims=True)
        first, second = rays[split].copy(), rays[split].copy()
        first[ar, a] = mid
        second[ar, b_] = mid
        kids = [
            np.concatenate([first, second]),
            np.tile(sign[split], 2),
            np.tile(T[split].astype(np.float32), (2, 1)),
            np.tile(depth[split] + 1, 2),
            np.tile(np.minimum(bound[split], parent[split]), 2),
        ]
    else:
        kids = [a[:0] for a in chunk]
    return bound, f_all, u_all, kids, 


