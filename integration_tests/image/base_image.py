"""Writes a tar archive of installed Debian packages: a base image without a registry.

    base_image.py ARCHIVE [PACKAGE...]

The archive holds what Debian requires of every system, the named packages and all that these depend
on, as they are installed on this machine. Files that packages make when they are set up are not in
their lists; those that a base image needs are added here.
"""

import os
import subprocess
import sys
import tarfile

# Merged directories: packages may still list their files by the old names.
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
LEFT_OUT = ("/usr/share/doc/", "/usr/share/locale/", "/usr/share/man/", "/usr/share/info/")
MADE_AT_SET_UP = {
    "ca-certificates": ["/etc/ssl/certs/ca-certificates.crt"],
    "libc6": ["/etc/ld.so.cache"],
}


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def closure(packages):
    """The packages and everything installed that they depend on."""
    installed = output_of("dpkg-query", "--show", "--showformat", "${Package} ${Priority} ${db:Status-Status}\n").splitlines()
    priority = {name: priority for name, priority, status in map(str.split, installed) if status == "installed"}
    missing = [package for package in packages if package not in priority]
    if missing:
        sys.exit(f"not installed: {' '.join(missing)}")
    required = [name for name, value in priority.items() if value == "required"]
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    tree = output_of("apt-cache", "depends", "--recurse", "--installed", *(f"--no-{kind}" for kind in kinds), *required, *packages)
    names = {line.split(":")[0] for line in tree.splitlines() if line[:1].isalnum()}
    return sorted(names & priority.keys())


def merged(path):
    first = path.split("/")[1]
    return f"/usr{path}" if first in MERGED and os.path.islink(f"/{first}") else path


def contents(packages):
    """The paths of all files of the packages, and links that choose between alternatives."""
    listed = output_of("dpkg-query", "--listfiles", *packages).splitlines()
    paths = {merged(path) for path in listed if path.startswith("/") and path != "/."}
    paths.update(path for package in packages for path in MADE_AT_SET_UP.get(package, []))
    for directory in ("/usr/bin", "/usr/sbin"):
        for entry in os.scandir(directory):
            if entry.is_symlink() and os.readlink(entry.path).startswith("/etc/alternatives/") and os.path.realpath(entry.path) in paths:
                paths.update((entry.path, os.readlink(entry.path)))
    paths.update(f"/{name}" for name in MERGED if os.path.islink(f"/{name}"))
    return sorted(path for path in paths if os.path.lexists(path) and not path.startswith(LEFT_OUT))


def main(archive, packages):
    with tarfile.open(archive, "w") as tar:
        for path in contents(closure(packages)):
            tar.add(path, recursive=False)
        for name in ("passwd", "group"):
            tar.add(f"/usr/share/base-passwd/{name}.master", f"/etc/{name}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
