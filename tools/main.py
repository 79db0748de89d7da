"""The program `replica`: one parser, one place that catches, one meaning of each exit status."""

import argparse
import difflib
import gc
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cliff.app import App
from cliff.commandmanager import CommandManager
from cliff.help import HelpExit

from glance_replicas import __version__
from glance_replicas.errors import ConfigError, ReplicaError
from glance_replicas.location import redact_text

from .command import UNKNOWN, USAGE, status_of

GARBAGE = (
    50_000,
    20,
    100,
)  # rows by the million make little garbage in cycles: looking for it was a quarter of the time
INTERRUPTED, BROKEN_PIPE = 130, 141  # as a shell reports SIGINT and SIGPIPE
GROUP = "glance_replicas.commands"

log = logging.getLogger(__name__)


class Commands(CommandManager):
    """The commands of our entry points, each imported when it is run and not before."""

    def load_commands(self, namespace: str) -> None:
        """Note the entry points of this group; `_` in a name reads as a space."""
        self.group_list.append(namespace)
        for entry in importlib.metadata.entry_points(group=namespace):
            self.commands[entry.name.replace("_", " ")] = entry

    def find_command(self, argv: list[str]) -> Any:
        """As cliff; an unknown command is the user's error."""
        try:
            return super().find_command(argv)
        except ValueError:
            near = difflib.get_close_matches(argv[0], self.commands, 1)
            hint = f"; did you mean {near[0]}?" if near else "; see: replica --help"
            raise ConfigError(f"there is no command {' '.join(argv)}{hint}") from None


class Replica(App):  # type: ignore[misc, unused-ignore]
    """`replica COMMAND`; global options may stand before and after the command."""

    NAME = "replica"

    def __init__(self) -> None:
        super().__init__(
            description="Every copy of every Glance image: list, verify, prune.",
            version=__version__,
            command_manager=Commands(GROUP),
            deferred_help=True,
        )

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, object] | None = None
    ) -> argparse.ArgumentParser:
        """Cliff's global options and --config-file; no abbreviations, which could swallow a command's own."""
        wanted = {"prog": self.NAME, "allow_abbrev": False, **(argparse_kwargs or {})}
        parser = super().build_option_parser(description, version, wanted)
        for action in parser._actions:
            if "--version" in action.option_strings:
                action.version = f"replica {version}"  # type: ignore[attr-defined]
        parser.add_argument(
            "--config-file",
            action="append",
            default=[],
            metavar="FILE",
            help="glance-api.conf; may be repeated. Default: where Glance looks, /etc/glance first.",
        )
        return parser

    def configure_logging(self) -> None:
        """Our own warnings on stderr; -v adds information, -vv everything of every library."""
        level = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO}.get(self.options.verbose_level, logging.DEBUG)
        console = logging.StreamHandler(self.stderr)
        console.setFormatter(Redacting("replica: %(levelname)s: %(message)s"))
        if level > logging.DEBUG:
            console.addFilter(logging.Filter("glance_replicas"))
        root = logging.getLogger()
        root.handlers[:] = [console]
        if self.options.log_file:
            root.addHandler(_log_file(self.options.log_file))
        root.setLevel(level)

    def run(self, argv: Sequence[str]) -> int:
        """The exit status of the command in `argv`."""
        self.options, rest = self.parser.parse_known_args(argv)
        self.configure_logging()
        self.interactive_mode = False
        if self.options.deferred_help:
            rest.insert(0, "help")
        if not rest:
            self.parser.print_usage(self.stderr)
            self.stderr.write("replica: error: no command given; see: replica --help\n")
            return USAGE
        return self.run_subcommand(rest)

    def run_subcommand(self, argv: list[str]) -> int:
        """The exit status of one command. Errors are the caller's."""
        factory, name, rest = self.command_manager.find_command(argv)
        command = factory(self, self.options, cmd_name=name)
        arguments = command.get_parser(f"{self.NAME} {name}").parse_args(rest)
        try:
            return command.run(arguments)
        except HelpExit:
            return 0


class Redacting(logging.Formatter):
    """Lines without the credentials of URLs: with -vv libraries tell of rows and requests as they are."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with its traceback if there is one."""
        return redact_text(super().format(record))


def _log_file(path: str) -> logging.Handler:
    try:
        handler = logging.FileHandler(path)
    except OSError as error:
        raise ConfigError(f"--log-file {path}: {(error.strerror or 'cannot be written').lower()}") from error
    handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(name)s %(message)s"))
    return handler


def main(argv: Sequence[str] | None = None) -> int:
    """Run `replica` and return its exit status; every error is one line on stderr."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, about themselves
    gc.set_threshold(*GARBAGE)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = Replica().run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _failed("interrupted", INTERRUPTED)
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # threads that wait for a slow place would hold the process for as long as they may
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return BROKEN_PIPE
    except ReplicaError as error:
        return _failed(str(error), status_of(error), debug="--debug" in words)
    except Exception as error:  # noqa: BLE001  the outermost edge; --debug shows the traceback
        text = f"internal: {type(error).__name__}: {error}; please report it, with the output of --debug"
        return _failed(text, UNKNOWN, debug="--debug" in words)
    return status


def _failed(text: str, status: int, debug: bool = False) -> int:
    if debug:
        log.error("the traceback", exc_info=True)
    sys.stderr.write(f"replica: error: {text}\n")
    return status


def list_main() -> int:
    """`replica-list`: the same as `replica list`."""
    return main(["list", *sys.argv[1:]])


def verify_main() -> int:
    """`replica-verify`: the same as `replica verify`."""
    return main(["verify", *sys.argv[1:]])


def prune_main() -> int:
    """`replica-prune`: the same as `replica prune`."""
    return main(["prune", *sys.argv[1:]])
