"""Where the build put things. `make` sets the variables; without them the defaults of a plain `cargo build` hold."""
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CARGO_TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
EMBERBOX = Path(os.environ.get("EMBERBOX_BIN", CARGO_TARGET / "release/emberbox"))
PROBE = Path(os.environ.get("EMBERBOX_PROBE", CARGO_TARGET / "x86_64-unknown-linux-gnu/release/emberbox-probe"))
BASE = Path(os.environ.get("EMBERBOX_BASE", ROOT / "target/base"))


def require(path, how):
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {how}")
    return path
