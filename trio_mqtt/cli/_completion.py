"""``completion``: a script by which a shell completes commands and options.

It is generated from the parsers. What is no option and has no choice of values the shell completes
as it does by itself: by the names of files.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from ._failures import OK

NAME: str = "completion"
SUMMARY: str = "print a script for the completion of a shell"

_EXAMPLES = """\
put one of these where your shell starts:
  source <(trio-mqtt completion bash)                ~/.bashrc
  source <(trio-mqtt completion zsh)                 ~/.zshrc, behind compinit
  trio-mqtt completion fish | source                 ~/.config/fish/config.fish
"""

_Parsers: TypeAlias = Mapping[str, argparse.ArgumentParser]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.description = "Prints a script by which your shell completes commands and options."
    parser.epilog = _EXAMPLES
    parser.add_argument("shell", choices=_SCRIPTS)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns its exit code."""
    parsers: _Parsers = arguments.parsers
    print(_SCRIPTS[arguments.shell](parsers), flush=True)
    return OK


_BASH = """\
_trio_mqtt() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={commands}
    else
        case "${{COMP_WORDS[1]}} $before" in
{values}
        *) case "${{COMP_WORDS[1]}}" in
{options}
            esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _trio_mqtt trio-mqtt"""


def _bash(parsers: _Parsers) -> str:
    values: list[str] = []
    options: list[str] = []
    for name, parser in parsers.items():
        for action in _actions(parser):
            for option in action.option_strings:
                if action.nargs != 0:  # it takes a value
                    words = shlex.quote(" ".join(_choices(action)))
                    values.append(f"        {shlex.quote(f'{name} {option}')}) words={words} ;;")
        offered = shlex.quote(" ".join(_words(parser)))
        options.append(f"            {name}) words={offered} ;;")
    return _BASH.format(
        commands=shlex.quote(" ".join(parsers)),
        values="\n".join(values),
        options="\n".join(options),
    )


def _zsh(parsers: _Parsers) -> str:
    return "autoload -Uz bashcompinit && bashcompinit\n" + _bash(parsers)


def _fish(parsers: _Parsers) -> str:
    lines: list[str] = []
    for name, parser in parsers.items():
        lines.append(f"complete -c trio-mqtt -n __fish_use_subcommand -fa {name}")
        offered = [one for one in _actions(parser) if one.option_strings or _choices(one)]
        lines += (_fish_line(name, action) for action in offered)
    return "\n".join(lines)


def _fish_line(command: str, action: argparse.Action) -> str:
    words = ["complete", "-c", "trio-mqtt", "-n", f"__fish_seen_subcommand_from {command}"]
    for option in action.option_strings:
        words += ["-l", option[2:]] if option.startswith("--") else ["-s", option[1:]]
    if _choices(action):
        words += ["-fa", " ".join(_choices(action))]
    if action.option_strings and action.nargs != 0:
        words.append("-r")  # it takes a value
    if action.help:
        words += ["-d", action.help % {**vars(action), "prog": "trio-mqtt"}]
    return shlex.join(words)


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What may stand where no value of an option is due."""
    for action in _actions(parser):
        yield from action.option_strings or _choices(action)


def _choices(action: argparse.Action) -> list[str]:
    return [] if action.choices is None else [str(choice) for choice in action.choices]


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001, argparse has no other way


_SCRIPTS: dict[str, Callable[[_Parsers], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
