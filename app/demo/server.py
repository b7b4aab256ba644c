"""Serving the demo: on this machine alone unless asked otherwise, and without a word to any other machine."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import ConfigError

if TYPE_CHECKING:
    import gradio as gr


def launch(run_dir: Path | None, host: str = "127.0.0.1", port: int = 7860, *, agent: str = "last") -> None:
    """Serve the demo until it is interrupted.

    Args:
        run_dir: Folder of a finished run; None takes the one under `runs/` whose training finished last.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        agent: Who answers; see `app.agents`.

    Raises:
        StoreError: There is no finished run.
        ConfigError: There is no such agent, or the address or the port cannot be listened on.
    """
    page, url = start(run_dir, host, port, agent=agent)
    print(f"Persona is open at {url} - end it with Ctrl-C.", flush=True)
    page.block_thread()


def start(
    run_dir: Path | None, host: str = "127.0.0.1", port: int = 7860, *, agent: str = "last"
) -> "tuple[gr.Blocks, str]":
    """Serve the demo in the background; takes the arguments of `launch` and raises as it does.

    Returns:
        The running page, to be closed with `close()`, and its address.
    """
    free = _check_port(host, port)
    # Read when the packages are imported, so they are set first and the imports follow.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    from app.demo.handlers import Demo  # noqa: PLC0415 - see above
    from app.demo.interface import KEYS, STYLE, build_interface, theme  # noqa: PLC0415 - see above
    from app.trained import TrainedRun, newest_run  # noqa: PLC0415 - see above

    folder = newest_run() if run_dir is None else run_dir
    page = build_interface(Demo(TrainedRun.open(folder, agent)))
    _, url, _ = page.queue(max_size=64).launch(
        server_name=host,
        server_port=free,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        run_history=False,
        theme=theme(),
        css_paths=STYLE,
        js=KEYS,
    )
    return page, url


def _check_port(host: str, port: int) -> int:
    """The port, or a free one for 0, after a try to take it."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host, port))
            found: int = server.getsockname()[1]
            return found
    except OSError as err:
        raise ConfigError(
            f"--host and --port must be an address of this machine and a free port; got {host} and {port} "
            f"({err.strerror}). Choose another --port; 0 takes a free one."
        ) from err
