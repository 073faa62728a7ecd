"""The command line: argv to settings, errors to one line and an exit code.

It must not do the work: filesfs.commands does, and files_server, which `serve`, `backup` and `fsck`
become. What is slow to load is imported where it is needed.

Exit codes: 0 done, 1 failed, 2 wrong usage, 32 mounting or unmounting failed (as mount(8)).
`serve` adds 3 (cannot listen) and 4 (the data folder).
"""

from __future__ import annotations

import getopt
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from filesfs import __version__, options
from filesfs.errors import UsageError

app = typer.Typer(
    name="filesfs",
    help="A file system over the Files API, and a lightweight server for it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_OPTIONS_HELP = "options with commas, as in -o ro,cache_size=1G; `filesfs options` lists them"
OptionTexts = Annotated[list[str], typer.Option("-o", metavar="OPTIONS", help=_OPTIONS_HELP)]
DataDirectory = Annotated[Path, typer.Argument(metavar="DATA_DIR", help="of a server")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="the mount point")]


@app.command()
def mount(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="http(s)://HOST:PORT[/BUCKET[/PREFIX]] or unix:PATH[:/BUCKET]"
        ),
    ],
    directory: Directory,
    given: OptionTexts = [],  # noqa: B006  # typer copies it
    foreground: Annotated[
        bool, typer.Option("-f", "--foreground", help="stay, log to stderr, end on Ctrl-C")
    ] = False,
) -> None:
    """Mount SOURCE on DIR. Returns when the mount answers, or has failed."""
    _mount(source, directory, given, foreground=foreground)


@app.command()
def umount(
    directory: Directory,
    force: Annotated[
        bool,
        typer.Option("-f", "--force", help="do not wait for uploads; they go at the next mount"),
    ] = False,
    lazy: Annotated[
        bool, typer.Option("-l", "--lazy", help="out of the tree now, open files end later")
    ] = False,
    dead: Annotated[
        bool, typer.Option("--dead", help="only take away a mount whose daemon has died")
    ] = False,
    timeout: Annotated[float, typer.Option(help="seconds to wait for uploads")] = 600.0,
) -> None:
    """Send what is not yet sent, then unmount DIR and wait for its daemon."""
    from filesfs.commands import unmount

    path = Path(os.path.abspath(directory))
    if dead:
        unmount.clear_dead(path)
    else:
        unmount.unmount(path, lazy=lazy, force=force, timeout=timeout)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    data_dir: Annotated[Path | None, typer.Option(help="catalog and content")] = None,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT or unix:/PATH (default 127.0.0.1:8321)")
    ] = None,
) -> None:
    """Run the Files server. All other options are the server's: `filesfs serve -- --help`."""
    arguments = list(context.args)
    if data_dir is None and not _data_dir_elsewhere(arguments):
        data_dir = _default_data_dir()
    given = {"--data-dir": data_dir, "--listen": listen}
    for name, value in given.items():
        if value is not None:
            arguments += [name, str(value)]
    _become("files_server.serve", arguments)


@app.command()
def backup(
    data_dir: DataDirectory,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="a folder that is not there")],
) -> None:
    """Copy a server's data folder, also while it runs; on the same disk it costs no space."""
    _become("files_server.backup", [str(data_dir), str(target)])


@app.command()
def fsck(
    data_dir: DataDirectory,
    digests: Annotated[bool, typer.Option("--digests", help="read every byte")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="mend what can be mended")] = False,
) -> None:
    """Check the data folder of a stopped server, or a backup: 0 whole, 1 damaged, 2 unchecked."""
    flags = ["--digests"] * digests + ["--repair"] * repair
    _become("files_server.fsck", [*flags, "--", str(data_dir)])


@app.command()
def undelete(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="a path in a mount, or a source as for mount")
    ],
    restore: Annotated[bool, typer.Option("--restore", help="bring back, not only list")] = False,
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="bring one back as NAME")] = "",
    version: Annotated[
        str, typer.Option("--version", metavar="VERSION", help="this one, as listed")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace what is there; that is kept in turn")
    ] = False,
    purge: Annotated[bool, typer.Option("--purge", help="give up what is kept, now")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the list for programs")] = False,
    given: OptionTexts = [],  # noqa: B006
) -> None:
    """List deleted and replaced files that the server keeps, or bring them back."""
    from filesfs.commands import undelete as keeping

    if purge and (restore or to or overwrite):
        raise UsageError("--purge gives up what the others would bring back: choose")
    wish = keeping.Wish(source, given, version, to, overwrite)
    if purge:
        print(f"given up: {keeping.purge(wish)}")
    elif restore or to or overwrite:
        if not keeping.restore(wish, _say):
            raise typer.Exit(1)
    else:
        found = keeping.collect(wish)
        if as_json:
            print(json.dumps([one.model_dump() for one in found], indent=2))
        else:
            print("\n".join(map(keeping.line, found)) or "nothing that was deleted is kept there")


@app.command()
def up(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="default: /mnt/files, or ~/files")
    ] = None,
    given: OptionTexts = [],  # noqa: B006
    folder: Annotated[
        Path | None, typer.Option("--state-dir", help="data, socket and logs")
    ] = None,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT for other clients too (default: a socket)")
    ] = "",
    keep_deleted: Annotated[
        str, typer.Option(help="how long deleted files can be undeleted, as 7d (default: not)")
    ] = "",
) -> None:
    """A server on a local data folder and its mount, until Ctrl-C."""
    from filesfs.commands import up as running

    place = running.Place(
        mountpoint=Path(os.path.abspath(directory or running.default_mountpoint())),
        folder=Path(os.path.abspath(folder or running.state_folder())),
        listen=listen,
        options=given,
        keep_deleted=keep_deleted,
    )
    code = running.run(place, _say, lambda source: _welcome(place, source))
    raise typer.Exit(code)


@app.command()
def status(
    directory: Annotated[Path | None, typer.Argument(metavar="DIR", help="default: all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    as_metrics: Annotated[
        bool, typer.Option("--prometheus", help="its text format, for a textfile collector")
    ] = False,
) -> None:
    """What the mounts of this machine are doing."""
    from filesfs.commands import status as asking

    answers = asking.collect(directory and Path(os.path.abspath(directory)))
    if as_metrics:
        print(asking.prometheus(answers), end="")
    elif as_json:
        print(json.dumps(answers, indent=2))
    else:
        _show_status(answers)
    if any(answer["state"] != "serving" for answer in answers):
        raise typer.Exit(1)


@app.command()
def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="whom it is for")],
    rights: Annotated[
        str, typer.Option(help="of read, write, delete, register, admin; with commas")
    ] = "read,write,delete",
    buckets: Annotated[str, typer.Option(help="patterns of bucket names, with commas")] = "*",
) -> None:
    """Make a bearer token: prints it, and the line for the server's tokens file."""
    from files_server.auth import TokensError, new_token

    try:
        secret, line = new_token(name, rights, buckets)
    except TokensError as error:
        raise UsageError(str(error)) from None
    print(f"token, for the client's token_file (shown this once):\n{secret}\n")
    print(f"line, for the server's --tokens-file:\n{line}")


@app.command("options")
def list_options() -> None:
    """The options of `mount -o`."""
    for name, option in options.OPTIONS.items():
        shown = f"{name}={option.placeholder}" if option.parse else name
        print(f"  {shown:28} {option.help}")
    print(f"  {'and for the kernel:':28} {', '.join(sorted(options.KERNEL_FLAGS))}")


@app.command()
def version() -> None:
    """The version of filesfs."""
    print(f"filesfs {__version__}")


def main() -> NoReturn:
    """The program `filesfs`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """One command; its exit code. A user's mistake is one line on stderr."""
    try:
        code = app(args=list(arguments), prog_name="filesfs", standalone_mode=False)
    except UsageError as error:
        return _complain("filesfs", str(error), error.exit_code)
    except KeyboardInterrupt:
        return 130
    except typer.Abort:
        return 130
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own, of whichever copy typer uses
            raise
        message = error.format_message()
        if message.startswith("Usage:"):  # no command at all: the help is the answer
            print(message, file=sys.stderr)
            return 2
        return _complain("filesfs", f"{message} (--help tells the arguments)", 2)
    return code if isinstance(code, int) else 0


def mount_helper() -> NoReturn:
    """The program `mount.filesfs`, which mount(8) runs: SOURCE DIR [-sfnv] [-o OPTIONS]."""
    sys.exit(run_helper(sys.argv[1:]))


def run_helper(arguments: Sequence[str]) -> int:
    """mount(8)'s arguments; its exit codes are 1 for wrong usage and 32 for failure."""
    try:
        flags, words = getopt.gnu_getopt(list(arguments), "sfnvwrN:o:t:")
    except getopt.GetoptError as error:
        return _complain("mount.filesfs", str(error), 1)
    if len(words) != 2:
        return _complain(
            "mount.filesfs", f"needs SOURCE and DIR, and got {len(words)} arguments", 1
        )
    given = [value for flag, value in flags if flag == "-o"] + ["ro"] * (("-r", "") in flags)
    try:
        _mount(words[0], Path(words[1]), given, foreground=False, only_check=("-f", "") in flags)
    except UsageError as error:
        return _complain("mount.filesfs", str(error), 1 if error.exit_code == 2 else 32)
    return 0


def _mount(
    source: str,
    directory: Path,
    given: Sequence[str],
    *,
    foreground: bool,
    only_check: bool = False,
) -> None:
    from filesfs import config
    from filesfs.commands import mount as mounting

    settings = config.load(source, directory, given)
    if only_check:
        return
    if foreground:
        raise typer.Exit(mounting.run_foreground(settings))
    mounting.run_background(settings, source, given)


def _become(module: str, arguments: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def _data_dir_elsewhere(arguments: Sequence[str]) -> bool:
    """Whether the server finds its data folder by itself, or only explains itself."""
    named = any(a in ("--help", "-h") or a.startswith("--config") for a in arguments)
    return named or any(f"FILES_SERVER_{n}" in os.environ for n in ("DATA_DIR", "CONFIG"))


def _default_data_dir() -> Path:
    from filesfs.commands.up import state_folder

    return state_folder() / "data"


def _welcome(place: Any, source: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    directory, shown = escape(str(place.mountpoint)), escape(source)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold green]Files are at {directory}[/]; the server is {shown}")
    console.print("In another terminal:")
    console.print(f"  [bold]mkdir {directory}/first[/]             a bucket, which is a directory")
    console.print(f"  [bold]cp /etc/hostname {directory}/first/[/]")
    console.print(f"  [bold]ls -l {directory}/first[/]")
    console.print(f"  [bold]{escape(_curl(source))}[/]")
    console.print(f"The data stays in {escape(str(place.data_dir))}. Ctrl-C unmounts and stops.")


def _curl(source: str) -> str:
    if source.startswith("unix:"):
        path = source.removeprefix("unix:")
        return f"curl --unix-socket {path} http://localhost/v1/files/first"
    return f"curl {source}/v1/files/first"


def _show_status(answers: Sequence[dict[str, Any]]) -> None:
    if not answers:
        print("no filesfs is mounted")
    for answer in answers:
        print(f"{answer['mountpoint']}  {answer['state']}  {answer['source']}")
        for name, value in answer.items():
            if name not in ("mountpoint", "state", "source"):
                shown = ", ".join(value) if isinstance(value, list) else value
                print(f"  {name.replace('_', ' '):16} {shown}")


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(program: str, message: str, code: int) -> int:
    print(f"{program}: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
