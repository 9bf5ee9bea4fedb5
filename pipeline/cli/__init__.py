"""The command line: parse, one call, print. A command's module loads when the command runs."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Sequence
from functools import wraps
from importlib import import_module
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from pipeline import __version__, garbage
from pipeline.cli import log, options, settings, stops, streams
from pipeline.errors import PipelineError, nearest
from pipeline.locks import check_system

#: Command to its module in `commands` (and its function there, else `command`), and its line in
#: the help.
COMMANDS = {
    "run": ("run", "All stages in one: features, heads, fine-tuning."),
    "extract": ("extract", "Run a trunk over images and keep the features."),
    "fit-head": ("fit_head", "Choose and fit heads on cached features."),
    "heads": ("listings:heads", "Compare the heads of a table."),
    "compare": ("compare", "Compare trunks, layers and poolings."),
    "advise": ("advise", "Say which part to train, from measurements."),
    "finetune": ("finetune", "Fine-tune the last stages, starting from a head."),
    "models": ("listings:models", "Compare the fine-tuned models of a table."),
    "predict": ("predict", "Say what is on images, with probabilities."),
    "evaluate": ("evaluate", "Measure a head or model on labelled images."),
    "show": ("show", "Draw a contact sheet of images or predictions."),
    "audit": ("audit", "Look for copies, wrong labels and outliers in a table."),
    "export": ("export", "Write a head or model as ONNX, OpenVINO or safetensors."),
    "report": ("report", "Write a page that shows data, choice, mistakes and faults."),
    "trunks": ("listings:trunks", "List the trunks there are."),
    "status": ("listings:status", "List the tables and heads of the cache, newest first."),
    "cache": ("cache", "Show, verify and tidy the cache."),
    "completion": ("listings:completion", "Print what completes commands in a shell."),
}


#: What Ctrl-C says where the command knows nothing better.
STOPPED = "Stopped. What was committed stays in the cache; the same command goes on."


class LazyGroup(click.Group):
    """A group whose commands are imported when they run; errors leave here as sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the stages."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        check_system()
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        found = import_module(f"pipeline.cli.commands.{module}")
        command: click.Command = getattr(found, name or "command")
        return _with_log_file(command)

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run a command line, and write its exit code to the log file where there is one."""
        if args is None:
            streams.in_utf8()
            garbage.collect_rarely()
        words = sys.argv[1:] if args is None else list(args)
        with streams.prepared(), log.logged(words):
            return super().main(words, *more, **extra, obj=words)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return commands without importing them, and the options of the program itself."""
        found = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which is nearest."""
        known = args and (args[0] in COMMANDS or args[0].startswith("-"))
        if not known and not ctx.resilient_parsing:
            hint = nearest(args[0], COMMANDS)
            ctx.fail(f"There is no command '{args[0]}'.{hint} There are: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' lines without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; print a `PipelineError` as a sentence and choose the exit code."""
        ctx.meta[options.BEGAN] = time.monotonic()
        try:
            with stops.heard():
                return super().invoke(ctx)
        except PipelineError as error:
            log.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except click.ClickException as error:
            if isinstance(error, click.BadParameter) and _from_file(error):
                where = f"{error.format_message()} It stands in {settings.FILE}."
                error = click.UsageError(where, error.ctx)
            log.MESSAGES.info(log.shown(f"Error: {error.format_message()}"))
            raise error
        except KeyboardInterrupt as error:
            log.echo(str(error) or STOPPED, err=True)
            ctx.exit(128 + stops.number(type(error)))
        except BrokenPipeError:
            sys.stdout = None  # the reader left, as `head` does
            ctx.exit(0)
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno is None:
                raise  # a library's own, not the system's
            reason = getattr(error, "strerror", None) or "No memory left"
            place = f": {name}" if (name := getattr(error, "filename", None)) else ""
            log.echo(f"Error: {reason}{place}. What was committed stays in the cache.", err=True)
            ctx.exit(1)


def _with_log_file(command: click.Command) -> click.Command:
    """Return a command with --log-file, which tells what it took from `pipeline.toml`."""
    found = copy.copy(command)
    if isinstance(found, click.Group):
        found.commands = {name: _with_log_file(one) for name, one in found.commands.items()}
        return found
    callback = command.callback
    assert callback is not None

    @wraps(callback)
    def call(**values: Any) -> Any:
        if not values.get("as_json") and (words := settings.taken(click.get_current_context())):
            log.echo(f"From {settings.FILE}: {words}", err=True)
        return callback(**values)

    found.params, found.callback = [*command.params, log.option()], call
    return found


def _from_file(error: click.BadParameter) -> bool:
    """Say whether the value that click refuses came from `pipeline.toml`."""
    if error.ctx is None or error.param is None:
        return False
    source = error.ctx.get_parameter_source(error.param.name or "")
    return source is ParameterSource.DEFAULT_MAP


@click.group(
    cls=LazyGroup,
    params=[log.option()],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="pipeline")
@click.pass_context
def main(context: click.Context) -> None:
    """From a folder of images to a trained classifier, paying for the trunk once.

    \b
    pipeline run photos/                 all of it: features, the best head, what to type next
    pipeline extract photos/             features of every image, cached
    pipeline fit-head --clf all          every kind of head, chosen by cross-validation
    pipeline heads                       which is best
    pipeline finetune --unfreeze layer4  the last stage learns too, starting from the head
    pipeline predict photos/             what the best of them says of images
    pipeline report                      one page to look at: data, choice, mistakes, faults
    """
    context.default_map = settings.read(main, context)
