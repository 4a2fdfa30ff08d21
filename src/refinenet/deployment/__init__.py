"""Deployment: many images, large images, videos, and clusters.

Start reading with `files.segment_files`, the run over many images on one machine, which writes the results:
`image_search` finds the images, `inputs` plans the jobs, `journal` makes the run resumable. `video/` and `ray/` are the
other two kinds of run, and `server/` is the HTTP server. `sharing.SharedModel`, the base class of `RefineNet`, starts
each of them and shares models.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.deployment.file_results import FileResult
    from refinenet.deployment.files import check_work, take_all
    from refinenet.deployment.image_search import FoundImage, Search, find_images, refuse_missing
    from refinenet.deployment.inputs import JobList, choose_kinds, plan_bytes, plan_work, usual_suffix
    from refinenet.deployment.journal import JOURNAL_FILE, SETTINGS_FILE, file_state
    from refinenet.deployment.large_images import OVERLAP, Windows
    from refinenet.deployment.ray.engine import segment_with_ray
    from refinenet.deployment.ray.journal import RayResult, failed
    from refinenet.deployment.ray.storage import find_skipped, pair_places
    from refinenet.deployment.server.app import create_app
    from refinenet.deployment.server.http.guarded_app import create_guarded_app
    from refinenet.deployment.server.http.refusals import Refusal
    from refinenet.deployment.server.http.running import listen, run_app
    from refinenet.deployment.server.metrics import Metrics
    from refinenet.deployment.server.page import respond_static
    from refinenet.deployment.server.routes import read_stream
    from refinenet.deployment.server.settings import ServerSettings, check_libraries
    from refinenet.deployment.server.work import WorkQueue
    from refinenet.deployment.setting_changes import Options, find_setting_changes, write_repeated, write_value
    from refinenet.deployment.sharing import SharedModel
    from refinenet.deployment.video.reader import find_source, is_video
    from refinenet.deployment.video.runner import choose_output, open_renderers, plan_output
    from refinenet.deployment.video.window import check_display
    from refinenet.inference.output_kinds import Kind
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "JOURNAL_FILE",
    "OVERLAP",
    "SETTINGS_FILE",
    "FileResult",
    "FoundImage",
    "JobList",
    "Kind",
    "Metrics",
    "Options",
    "RayResult",
    "Refusal",
    "Search",
    "ServerSettings",
    "SharedModel",
    "Windows",
    "WorkQueue",
    "check_display",
    "check_libraries",
    "check_work",
    "choose_kinds",
    "choose_output",
    "create_app",
    "create_guarded_app",
    "failed",
    "file_state",
    "find_images",
    "find_setting_changes",
    "find_skipped",
    "find_source",
    "is_video",
    "listen",
    "open_renderers",
    "pair_places",
    "plan_bytes",
    "plan_output",
    "plan_work",
    "read_stream",
    "refuse_missing",
    "respond_static",
    "run_app",
    "segment_with_ray",
    "take_all",
    "usual_suffix",
    "write_repeated",
    "write_value",
]
