"""A node in a process of its own, to be killed: submits a segment and looks after it until it has ended.

python node_process.py SETTINGS_JSON HOME BUNDLE_FOLDER
"""

import json
import sys
import time
from pathlib import Path

from elias.adapters.backends.worker import WorkerBackend
from elias.adapters.clock import SystemClock
from elias.domain.label import Label
from elias.ports.backend import BackendContext, Bundle
from elias.testing.bundles import need_of
from elias_trainer.contract import Job, from_json

settings, home, folder = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
clock = SystemClock()
backend = WorkerBackend(BackendContext(name="worker", node="test node", home=home, settings=settings, clock=clock))
job = from_json(Job, (folder / "job.json").read_bytes())
bundle = Bundle(job=job, folder=folder, label=Label.PUBLIC)
handle = backend.submit(job.segment, bundle, backend.offers(need_of(bundle))[0])
while not backend.poll(handle).state.is_final:
    backend.renew(handle)
    time.sleep(0.05)
