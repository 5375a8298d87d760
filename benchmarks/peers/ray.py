"""ray on this machine: tasks, and its own pool for maps."""

from __future__ import annotations

import asyncio
import logging
import os

import ray
from ray.util.multiprocessing import Pool

from peers.interface import Peer


class Ray(Peer):
    async def start(self):
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        ray.init(
            num_cpus=self.workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=2 * 1024**3,
            configure_logging=False,
        )
        self.functions = {}
        self.pool = None

    def call(self, function, *arguments):
        if function not in self.functions:
            self.functions[function] = ray.remote(function)
        return self.functions[function].remote(*arguments)

    def submit(self, function, *arguments):
        return asyncio.wrap_future(self.call(function, *arguments).future())

    async def gather(self, function, items):
        references = [self.call(function, item) for item in items]
        return await asyncio.gather(*references)

    async def map(self, function, items):
        if self.pool is None:  # its actors take all cores: there are no tasks then
            self.pool = Pool(self.workers)
        return await asyncio.to_thread(self.pool.map, function, items)

    async def close(self):
        if self.pool is not None:
            self.pool.terminate()
        ray.shutdown()
