"""What jobs log arrives in the logging of the program, with the job that it is from.

Nothing is to be set up in workers: their levels are those of the program. structlog and
loguru, which have ways of their own, are sent through the standard library's logging by
an `initializer`. A filter sees the context variables of whoever made the call.

Prints:

    INFO     r-17 count #1: counting 3
    WARNING  r-17 count_by_structlog #2: event='counted' total=3
    ERROR    r-17 count_by_loguru #3: 3 is too many
"""

import asyncio
import logging
import sys
from contextvars import ContextVar

from offloop import Pool

request_id: ContextVar[str] = ContextVar("request_id", default="-")


def count(number: int) -> None:
    logging.getLogger("app").info("counting %d", number)


def count_by_structlog(number: int) -> None:
    import structlog

    structlog.get_logger("app").warning("counted", total=number)


def count_by_loguru(number: int) -> None:
    from loguru import logger

    logger.error("{} is too many", number)


def send_through_logging() -> None:
    """Let structlog and loguru, in a worker, say what they have to say to logging."""
    import structlog
    from loguru import logger

    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )

    def pass_on(message) -> None:
        record = message.record
        log = logging.getLogger(record["name"])
        log.log(record["level"].no, record["message"])

    logger.remove()
    logger.add(pass_on, format="{message}")


def add_request(record: logging.LogRecord) -> bool:
    record.request = request_id.get()
    return hasattr(record, "offloop_job")


async def main() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(add_request)
    shown = (
        "%(levelname)-8s %(request)s %(offloop_function)s #%(offloop_job)d: %(message)s"
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], format=shown)
    async with Pool(max_workers=1, initializer=send_through_logging) as pool:
        request_id.set("r-17")
        for function in (count, count_by_structlog, count_by_loguru):
            await pool.run(function, 3)


asyncio.run(main())
