"""The node: camera images in, label images, confidence, overlay and depth out.

Not run under ROS yet: tested against a stand-in of rclpy and its messages (`tests/ros` of the repository).
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo, VisionClass

from refinenet import RefineNet
from refinenet_ros.images import decode_image, encode_image

USUAL_MODEL = {"model": "camvid", "device": "", "backend": "auto", "precision": "float32"}
PARAMETERS = {**USUAL_MODEL, "threshold": 0.0, "rate": 0.0, "queue": 1}
"""Parameters with their defaults; docs/how-to/ros.md of the repository says what they mean."""
WARM_UP_SIZE = (64, 64, 3)


class SegmentationNode(Node):
    """A node that predicts for the images of the topic `image`, one at a time.

    Raises:
        ValueError, OSError: The model cannot be used, or a parameter is out of range.
    """

    def __init__(self) -> None:
        super().__init__("refinenet")
        given = {name: self.declare_parameter(name, default).value for name, default in PARAMETERS.items()}
        self._threshold, self._rate, self._due = given["threshold"], given["rate"], 0.0
        if not (0 <= self._threshold <= 1 and self._rate >= 0 and given["queue"] >= 1):
            raise ValueError(f"threshold is in [0, 1], rate is at least 0, queue at least 1, not {given}.")
        chosen: dict[str, Any] = {name: given[name] or None for name in USUAL_MODEL}
        self._model = RefineNet(**chosen)
        self._model.predict(np.zeros(WARM_UP_SIZE, np.uint8))  # the first image does not wait for a translation
        self._outputs = {name: self.create_publisher(Image, f"~/{name}", 1) for name in self._list_topics()}
        if "labels" in self._outputs:
            self._publish_label_info()
        self.create_subscription(Image, "image", self._receive, choose_quality(given["queue"]))

    def _list_topics(self) -> list[str]:
        kinds = {spec.kind for spec in self._model.outputs}
        of_classes = ["labels", "confidence", "overlay"] if "classes" in kinds else []
        return [*of_classes, *(["depth"] if "depth" in kinds else [])]

    def _publish_label_info(self) -> None:
        """Publish once what later subscribers get, too: names of the classes and the threshold."""
        info = LabelInfo()
        info.header.stamp = self.get_clock().now().to_msg()
        names = self._model.label_set.names
        info.class_map = [VisionClass(class_id=k, class_name=name) for k, name in enumerate(names)]
        info.threshold = float(self._threshold)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._info = self.create_publisher(LabelInfo, "~/label_info", latched)
        self._info.publish(info)

    def _receive(self, message: Image) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        if self._rate:
            # A period after the last due time and not after this image: a camera of 30 Hz and a rate of 20 give 20, not
            # 15, and images that come a little early are not dropped.
            period = 1 / self._rate
            self._due = max(self._due, now - period) + period
        try:
            self._predict(message)
        except ValueError as error:
            self.get_logger().error(f"An image is skipped: {error}", throttle_duration_sec=5.0)

    def _predict(self, message: Image) -> None:
        found = self._model.predict(decode_image(message), abstain_below=self._threshold)
        if found.segmentation is not None:
            wide = found.labels.dtype == np.uint16
            self._publish("labels", found.labels, "mono16" if wide else "mono8", message)
            if self._is_wanted("confidence"):
                self._publish("confidence", found.segmentation.confidence, "32FC1", message)
            if self._is_wanted("overlay"):
                self._publish("overlay", found.segmentation.draw(), "rgb8", message)
        if "depth" in self._outputs:
            self._publish("depth", found.depth, "32FC1", message)

    def _is_wanted(self, name: str) -> bool:
        return bool(self._outputs[name].get_subscription_count())

    def _publish(self, name: str, pixels: Any, encoding: str, message: Image) -> None:
        self._outputs[name].publish(encode_image(pixels, encoding, message.header))


def choose_quality(queue: int) -> QoSProfile:
    """Return the quality of service of the subscription: one place goes to the newest image; more are reliable."""
    lost = ReliabilityPolicy.BEST_EFFORT if queue == 1 else ReliabilityPolicy.RELIABLE
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=queue, reliability=lost)


def main(arguments: list[str] | None = None) -> None:
    """Run the node until Ctrl-C; a model or parameter that cannot be used is an error in one line."""
    rclpy.init(args=arguments)
    try:
        rclpy.spin(SegmentationNode())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, OSError) as error:
        sys.exit(f"refinenet_ros: {error}")
    finally:
        rclpy.try_shutdown()
