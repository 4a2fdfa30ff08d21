"""Start the node: `ros2 launch refinenet_ros segment.launch.py image:=/camera/image_raw`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "model": ("camvid", str, "A model file, an exported .xml or .onnx file, hf://owner/name@revision, or camvid"),
    "device": ("", str, "cpu or cuda; empty for a GPU if there is one"),
    "backend": ("auto", str, "What runs the network"),
    "precision": ("float32", str, "Numerical precision of the network"),
    "threshold": ("0.0", float, "Pixels with less confidence have no class"),
    "rate": ("0.0", float, "Images a second at most; 0 for all that it can process"),
    "queue": ("1", int, "Images that wait; 1: the newest replaces it"),
}
"""Default, type and meaning of each parameter of the node."""


def generate_launch_description() -> LaunchDescription:
    """Return the node, with an argument for the topic of the camera and one for each of its parameters."""
    declared = [DeclareLaunchArgument("image", default_value="image", description="Topic of the camera")]
    declared += [DeclareLaunchArgument(k, default_value=v, description=text) for k, (v, _, text) in ARGUMENTS.items()]
    given = {k: ParameterValue(LaunchConfiguration(k), value_type=kind) for k, (_, kind, _) in ARGUMENTS.items()}
    node = Node(
        package="refinenet_ros",
        executable="segment",
        name="refinenet",
        output="screen",
        parameters=[given],
        remappings=[("image", LaunchConfiguration("image"))],
    )
    return LaunchDescription([*declared, node])
