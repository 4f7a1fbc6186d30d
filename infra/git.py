"""Git plumbing: what the registry needs of git, without ever touching the user's branch, index or files."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.errors import RegistryError

_FOREIGN: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
_AUTHOR: Final = ("VITAL registry", "registry@vital.invalid")
_FILE_MODE: Final = "100644"


@dataclass(frozen=True)
class Identity:
    """Who signs a commit or a tag."""

    name: str
    email: str

    @property
    def environment(self) -> dict[str, str]:
        """As git takes it from the environment."""
        return {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", self.name), ("EMAIL", self.email))
        }


class Git:
    """A repository on this machine, bare or with a work tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def around(cls, folder: Path) -> "Git | None":
        """Return the repository whose work tree holds ``folder``, or which ``folder`` is; None if there is none."""
        found = cls(folder).try_run("rev-parse", "--show-toplevel")
        if found is None and cls(folder).try_run("rev-parse", "--is-bare-repository") == "true":
            found = cls(folder).try_run("rev-parse", "--absolute-git-dir")
        return None if found is None else cls(Path(found))

    def run(self, *arguments: str, data: bytes | None = None, extra: Mapping[str, str] | None = None) -> str:
        """Run a git command and return its output without the last line end.

        Raises:
            RegistryError: git failed; the message is its first line.
        """
        done = self._start(arguments, data, extra)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip() or "no message"
            msg = f"git {arguments[0]} failed in {self.folder}: {' '.join(said.split())}"
            raise RegistryError(msg)
        return done.stdout.decode(errors="replace").removesuffix("\n")

    def try_run(self, *arguments: str) -> str | None:
        """Run a git command whose failure is an answer: None."""
        done = self._start(arguments, None, None)
        return done.stdout.decode(errors="replace").removesuffix("\n") if done.returncode == 0 else None

    def show(self, commit: str, path: str) -> bytes | None:
        """Return the content of a file at a commit, or None if it has none."""
        done = self._start(("cat-file", "blob", f"{commit}:{path}"), None, None)
        return done.stdout if done.returncode == 0 else None

    def identity(self) -> Identity:
        """Return who git would sign as, or the registry's own name on a machine where nobody has told git."""
        name, email = self.try_run("config", "user.name"), self.try_run("config", "user.email")
        name = os.environ.get("GIT_COMMITTER_NAME") or name
        email = os.environ.get("GIT_COMMITTER_EMAIL") or email or os.environ.get("EMAIL")
        return Identity(name, email) if name and email else Identity(*_AUTHOR)

    def tree_with(self, base: str, files: Mapping[str, bytes]) -> str:
        """Write a tree: that of commit ``base`` with ``files`` (path -> content) added or replaced.

        A temporary index is used; the repository's own stays as it is.
        """
        with tempfile.TemporaryDirectory(prefix="vital-index-") as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self.run("read-tree", base, extra=index)
            lines = ""
            for path, content in sorted(files.items()):
                blob = self.run("hash-object", "-w", "--stdin", data=content)
                lines += f"{_FILE_MODE} {blob}\t{path}\n"
            self.run("update-index", "--add", "--index-info", data=lines.encode(), extra=index)
            return self.run("write-tree", extra=index)

    def commit(self, tree: str, parents: list[str], message: str, identity: Identity) -> str:
        """Write a commit object; no branch moves."""
        options = [option for parent in parents for option in ("-p", parent)]
        return self.run("commit-tree", tree, *options, data=message.encode(), extra=identity.environment)

    def tip(self, branch: str) -> str | None:
        """Return the commit that a branch is at, or None if there is no such branch."""
        return self.try_run("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")

    def remotes(self) -> dict[str, str]:
        """Return the repository's remotes: name -> URL; none if this is no repository."""
        lines = (self.try_run("config", "--get-regexp", r"^remote\..*\.url$") or "").splitlines()
        pairs = (line.partition(" ") for line in lines)
        return {key.removeprefix("remote.").removesuffix(".url"): url for key, _, url in pairs}

    def modified(self) -> list[str]:
        """Return the tracked files that differ from HEAD, staged or not, sorted.

        ``git status`` alone leaves the index file as it is (``git diff`` would refresh it).
        """
        entries = self.run("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no").split("\0")
        return sorted(entry[3:] for entry in entries if entry)

    def branches_in_use(self) -> set[str]:
        """Return the branches that are checked out, here or in another work tree of the repository."""
        lines = self.run("worktree", "list", "--porcelain").splitlines()
        return {line.removeprefix("branch ") for line in lines if line.startswith("branch ")}

    @contextlib.contextmanager
    def tags_undone_on_failure(self) -> Iterator[list[str]]:
        """Collect the names of tags made inside the block; if it fails they are deleted again."""
        made: list[str] = []
        try:
            yield made
        except BaseException:
            for tag in made:
                self.try_run("update-ref", "-d", f"refs/tags/{tag}")
            raise

    def _start(
        self, arguments: tuple[str, ...], data: bytes | None, extra: Mapping[str, str] | None
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
        environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(extra or {})}
        environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
        command = ["git", "-C", str(self.folder), *arguments]
        try:
            return subprocess.run(command, input=data or b"", env=environment, capture_output=True, check=False)
        except FileNotFoundError as error:
            msg = "git is not installed or not on the PATH: the registry needs it"
            raise RegistryError(msg) from error


def local_path(url: str) -> Path | None:
    """Return the folder that a git URL names, or None if it is on another machine."""
    folder = Path(url.removeprefix("file://"))
    return folder if folder.is_absolute() and folder.is_dir() else None


def mirror_tags(url: str, folder: Path) -> Git:
    """Bring the registry's tags of a repository elsewhere, and the commits they name, into the bare one at ``folder``.

    Raises:
        RegistryError: the repository cannot be reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    git = Git(folder)
    git.run("init", "--quiet", "--bare")
    there: dict[str, str] = {}
    for line in git.run("ls-remote", "--tags", "--refs", url).splitlines():
        sha, ref = line.split("\t")
        if "@" in ref or "#" in ref:
            there[ref] = sha
    listed = git.run("for-each-ref", "--format=%(refname) %(objectname)", "refs/tags").splitlines()
    here = {line.partition(" ")[0]: line.partition(" ")[2] for line in listed}
    for ref in here.keys() - there.keys():
        git.run("update-ref", "-d", ref)
    missing = sorted(ref for ref, sha in there.items() if here.get(ref) != sha)
    if missing:
        wanted = "".join(f"+{ref}:{ref}\n" for ref in missing)
        git.run("fetch", "--quiet", "--no-tags", "--depth", "1", "--stdin", url, data=wanted.encode())
    return git
