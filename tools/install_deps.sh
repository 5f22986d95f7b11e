#!/usr/bin/env bash
# Installs what Tessera needs to build, on Debian or Ubuntu. Does nothing, and asks for no rights, when everything is there.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config git
  libfmt-dev libyaml-cpp-dev nlohmann-json3-dev libeigen3-dev libjpeg-dev libstb-dev libarchive-dev libhwy-dev libcairo2-dev
  libopenmpi-dev openmpi-bin
  libprotobuf-dev protobuf-compiler
  libcurl4-openssl-dev nettle-dev
  doctest-dev fonts-dejavu-core
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [[ "$status" == "install ok installed" ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "install_deps: this is not Debian or Ubuntu; please install the equivalents of: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || { echo "install_deps: run as root, or install sudo, to get: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "install_deps: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
