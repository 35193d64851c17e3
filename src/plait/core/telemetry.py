"""No library that plait loads tells its makers about it.

Some report their use by default: OpenVINO and NNCF post to an analytics service when they are
imported, ONNX Runtime from its native code, Gradio and Ray when they start. Here all of that is switched off, for this process and its
children; what the user has set in the environment stays as it is.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

VARIABLES: Final = {
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NNCF_CI": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What the libraries read, by name. Only those that are not set are set."""


def switch_off() -> None:
    """To be called before such a library is imported; costs microseconds."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    # OpenVINO and NNCF have no variable. Both do without this module when it cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def silenced_onnxruntime() -> Any:
    """The module ``onnxruntime``, told not to report. Raises ImportError."""
    switch_off()
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime
