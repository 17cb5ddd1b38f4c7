"""Kernel machines beside a support vector machine on tangent vectors.

    python tests/benchmarks/accuracy_kernels.py [--only ssvep]

Leave one person out on the shared recordings (EEGTENSOR_DATA), tangent vectors after
Recenter, standardised. No setting is chosen: those below for everybody. LAB-RBF takes
fewer supports and steps than published (350; 500 and 5000), which is 20 times faster.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from bench_multitask import Set, archives, ssvep
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from eegtensor.benchmark import bootstrap_interval
from eegtensor.features import kernels

SETS = {
    "ssvep": ssvep,
    "bnci": lambda: archives("bnci_iv_2b", [(8, 30)], 0.5, 3.5),
}


def machines() -> dict[str, Any]:
    return {
        "SVM, RBF": SVC(gamma="scale"),
        "AsK-LS, rbf": kernels.AsymmetricKernelClassifier("rbf"),
        "AsK-LS, sne": kernels.AsymmetricKernelClassifier("sne"),
        "AsK-LS, t-sne": kernels.AsymmetricKernelClassifier("t-sne"),
        "LAB-RBF": kernels.LocalBandwidthClassifier(100, steps=100, last_steps=500),
        "LAB-RBF, fixed": kernels.LocalBandwidthClassifier(100, steps=0, last_steps=0),
        "weighted NTK": kernels.WeightedNTKClassifier(),
        "GORF + linear SVM": make_pipeline(
            kernels.IndefiniteFourierFeatures(n_components=300),
            SVC(kernel="linear"),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(SETS))
    only = parser.parse_args().only
    for name in [only] if only else list(SETS):
        data: Set = SETS[name]()
        people = np.unique(data.subjects)
        print(f"{name}: {data.X.shape[0]} trials, {data.X.shape[1]} features")
        for label, machine in machines().items():
            scores, start = [], time.process_time()
            for person in people:
                test = data.subjects == person
                model = make_pipeline(StandardScaler(), machine)
                model.fit(data.X[~test], data.y[~test])
                scores.append(
                    balanced_accuracy_score(data.y[test], model.predict(data.X[test]))
                )
            seconds = (time.process_time() - start) / len(people)
            low, high = bootstrap_interval(np.asarray(scores))
            print(
                f"  {label:18s} {np.mean(scores):.3f} ({low:.3f}, {high:.3f})  "
                f"{seconds:.1f} s a fold",
                flush=True,
            )


if __name__ == "__main__":
    main()
