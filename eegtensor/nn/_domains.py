"""Statistics per named domain: a table that grows, forgets and is saved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from eegtensor._check import fail, listing
from eegtensor.domains import UNSEEN, Domain, DomainTable, check_unseen_policy
from eegtensor.geometry._groups import Groups, look_up
from eegtensor.geometry.spectral import _eager_cpu
from eegtensor.nn._precision import full_precision
from eegtensor.nn._statistics import ROWS, RunningStatistics

# A name is (dataset, subject, session); a bare string is a subject.
Name = str | Sequence[str]


def as_domain(name: Name) -> Domain:
    """Return a name as a `Domain`; a string is the subject of no dataset."""
    if isinstance(name, str):
        return Domain("", name, "")
    parts = tuple(name)
    if len(parts) != 3 or not all(isinstance(part, str) for part in parts):
        fail(
            f"{name!r} is no domain",
            fix="give a string, or three: (dataset, subject, session)",
        )
    return Domain(*parts)


class DomainStatistics(RunningStatistics):
    """Running statistics with a name for each row but the last, the pooled one.

    A mixin: the class after it in the order of resolution says what the
    statistics are and calls ``RunningStatistics.__init__``.
    """

    def _name_rows(self, domains: Iterable[Name], unseen: str) -> None:
        self._table = DomainTable()
        # Whether the pooled statistic lags behind the domains'.
        self._stale = False
        self.unseen = check_unseen_policy(unseen)
        self.add_domains(domains)

    @property
    def names(self) -> tuple[Domain, ...]:
        """The domains in order of their codes."""
        return self._table.names

    def encode(self, names: Iterable[Name]) -> Tensor:
        """Return int64 codes, one per trial; -1 for domains not in the table."""
        codes = torch.from_numpy(self._table.encode(map(as_domain, names)))
        return codes.to(self.seen.device)

    def add_domains(self, names: Iterable[Name], *, source: bool = True) -> None:
        """Add domains to the end of the table; those in it stay as they are.

        Parameters
        ----------
        names : iterable of str or (dataset, subject, session)
        source : bool
            Whether the new domains enter the pooled statistic: False for the
            people that a network is adapted to.
        """
        before = len(self._table)
        # A new table: whoever keeps the old one can put it back with its rows.
        table = DomainTable(self.names)
        table.encode(map(as_domain, names), grow=True)
        self._table = table
        new = len(table) - before
        if not new:
            return
        blank = self._new_rows(new, self.mean.device)
        blank["source"] &= source
        for name in ROWS:
            rows = self._buffers[name]
            assert rows is not None
            # The pooled row stays the last one: code -1 finds it without a branch.
            self._buffers[name] = torch.cat([rows[:-1], blank[name], rows[-1:]])

    def forget(self, names: Iterable[Name]) -> None:
        """Remove domains and their statistics, also from the pooled one.

        Codes of domains after them move down.

        Parameters
        ----------
        names : iterable of str or (dataset, subject, session)

        Raises
        ------
        EEGTensorError
            If a domain is not in the table.
        """
        gone = [as_domain(name) for name in names]
        unknown = [name for name in gone if name not in self._table]
        if unknown:
            fail(
                f"Domains {listing(unknown)} are not in the table",
                fix=f"choose among {listing(self.names)}",
            )
        codes = self._table.encode(gone).tolist()
        keep = sorted(set(range(len(self.mean))) - set(codes))
        blank = self._new_rows(1, self.mean.device)
        for name in ROWS:
            rows = self._buffers[name]
            assert rows is not None
            # Statistics are data: what held them is overwritten, not only left.
            kept = rows[keep]
            kept[-1:] = rows[:] = blank[name]
            self._buffers[name] = kept
        self._table = DomainTable(name for name in self.names if name not in gone)
        self._refresh()

    def fit_statistics(
        self, X: Tensor, domain: Tensor, *, weights: Tensor | None = None
    ) -> None:
        """Replace the statistics of every domain in a batch by the batch's own.

        The statistics of training and of evaluation become the mean and the
        dispersion of the domain's trials, without momentum and without
        gradient. No labels are needed: this is what adapts to a new person.

        Parameters
        ----------
        X : Tensor, shape (batch, ...)
            All trials of the domains.
        domain : Tensor of int64, shape (batch,)
        weights : Tensor, shape (batch,) | None
            Weights of the trials in the mean, such as against class imbalance.

        Raises
        ------
        EEGTensorError
            If a trial has no domain of the table (-1).
        """
        codes = self._known(X, domain, "fit_statistics")
        with torch.no_grad(), full_precision(X):
            # In float64: a mean is iterated further than float32 has digits.
            self._replace(self._enter(X.double(), learn=True), codes, weights)
        self._refresh()

    def update_statistics(
        self, X: Tensor, domain: Tensor, *, prior_trials: float = 10.0
    ) -> None:
        """Move the statistics of the domains in a batch by their new trials.

        A running mean over all trials of a domain: old trials do not fade. A
        domain without trials of its own starts at the pooled statistic.

        Parameters
        ----------
        X : Tensor, shape (batch, ...)
            One trial or more.
        domain : Tensor of int64, shape (batch,)
        prior_trials : float
            For how many trials the start counts.
        """
        codes = self._known(X, domain, "update_statistics")
        if self._stale:
            self._refresh()
        with torch.no_grad(), full_precision(X):
            self._stream(self._enter(X.double(), learn=True), codes, prior_trials)
        # A stream of a target, trial by trial, leaves the sources' statistic as it is.
        self._stale = bool(self.source[codes].any())

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation, which needs the pooled statistic."""
        super().train(mode)
        if not mode and self._stale:
            self._refresh()
        return self

    def _refresh(self) -> None:
        """Bring the pooled statistic up to date with the source domains."""
        self._stale = False
        if not self.n_domains:
            return
        with torch.no_grad():
            rows = (self.seen & self.source)[:-1].nonzero()[:, 0]
            if len(rows):
                means, variances = self.test_mean[rows], self.test_variance[rows]
                pooled = self.space.pool(means, variances)
                last = torch.tensor([self.n_domains], device=rows.device)
                self._write(last, pooled, torch.zeros(1, device=rows.device))

    def _codes(self, X: Tensor, domain: Any) -> Tensor:
        """Return the rows of trials; -1 and the pooled row are one."""
        if domain is None:
            return torch.full(X.shape[:1], self.n_domains, device=X.device)
        # A list of codes is as good as a tensor.
        codes = torch.as_tensor(domain, device=X.device)
        if codes.shape != X.shape[:1]:
            fail(
                f"domain has shape {tuple(codes.shape)} for {len(X)} trials",
                why="Each trial is normalised by the statistics of its own domain",
                fix="give one int64 code per trial, of norm.encode(names)",
            )
        if codes.is_floating_point() or codes.dtype == torch.bool:
            fail(
                f"domain has dtype {codes.dtype}",
                fix="give int64 codes, of norm.encode(names)",
            )
        codes = codes.to(torch.int64)
        if _eager_cpu(X) and len(codes):
            low, high = (int(end) for end in codes.aminmax())
            if low < UNSEEN or high >= self.n_domains:
                fail(
                    f"domain holds the code {low if low < UNSEEN else high}, "
                    f"the table has {self.n_domains} domains",
                    fix="take codes from norm.encode(names), or call norm.add_domains",
                )
        return torch.where(codes < 0, self.n_domains, codes)

    def _rows(self, X: Tensor, domain: Any) -> Tensor:
        """Return the row that normalises each trial."""
        if self.training:
            self._stale = True
            return self._known(X, domain, "Training")
        codes = self._codes(X, domain)
        # A domain of the table that never had a trial is as good as unseen.
        return torch.where(self.seen[codes], codes, self.n_domains)

    def _known(self, X: Tensor, domain: Any, action: str) -> Tensor:
        """Return the rows of trials that all need a domain of the table."""
        codes = self._codes(X, domain)
        if not len(codes):
            fail(f"{action} got no trials")
        if self.n_domains and _eager_cpu(X):
            unknown = (codes == self.n_domains).nonzero()[:, 0]
            if len(unknown):
                fail(
                    f"{action} got trials of no known domain (code -1): "
                    f"{listing(unknown.tolist())}",
                    why="Their statistics have no row in the table",
                    fix=f"call norm.add_domains; known are {listing(self.names)}",
                )
        return codes

    def _look_up(self, V: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Groups]:
        """Return the statistics that normalise in evaluation."""
        mean, variance = self.test_mean, self.test_variance
        if self.unseen != "pooled":
            unseen = codes == self.n_domains
            count = int(unseen.sum())
            if count and self.unseen == "raise":
                places = unseen.nonzero()[:, 0].tolist()
                fail(
                    f"Trials {listing(places)} are of domains without statistics; "
                    f"known are {listing(self.names)}",
                    why="unseen='raise' refuses to guess them",
                    fix="call fit_statistics with unlabelled trials of these domains "
                    "first, or set unseen='adapt' or 'pooled'",
                )
            if count == 1:
                fail(
                    "unseen='adapt' needs at least 2 trials of no known domain; got 1",
                    why="The statistic of one trial would make it the identity",
                    fix="give more trials at once, or set unseen='pooled'",
                )
            if count:
                slot = torch.zeros(count, dtype=torch.int64, device=V.device)
                with torch.no_grad():
                    own = self._fit(V[unseen].double(), slot)
                mean = torch.cat([mean[:-1], own[0]])
                variance = torch.cat([variance[:-1], own[1]])
        rows, groups = look_up(codes, len(mean))
        return mean[rows], variance[rows], groups

    # A state_dict holds the table, so that any set of domains can be loaded.

    def get_extra_state(self) -> Tensor:
        """Return the names of the domains as JSON in bytes."""
        # Bytes in a tensor: safetensors knows no strings.
        content = {"kind": self.kind, "domains": [list(name) for name in self.names]}
        return torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the names of the domains from a state_dict."""
        content = json.loads(bytes(state.tolist()))
        if content["kind"] != self.kind:
            fail(
                f"The saved statistics are {content['kind']}, those of this layer "
                f"{self.kind}",
                fix="build the layer with the options that it was saved with",
            )
        self._table = DomainTable(content["domains"])
        self._stale = False

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if self._stale:
            self._refresh()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}mean")
        if saved is not None and len(saved) != len(self.mean):
            if f"{prefix}_extra_state" not in state_dict:
                fail(
                    f"The saved statistics are of {len(saved) - 1} domains without "
                    f"names, this layer has {self.n_domains}",
                    fix="load a whole state_dict, with the entry _extra_state",
                )
            for name, rows in self._new_rows(len(saved), self.mean.device).items():
                self._buffers[name] = rows
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
