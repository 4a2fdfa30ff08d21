"""Build of the ROS 2 package by colcon (ament_python)."""

from setuptools import setup

NAME = "refinenet_ros"

setup(
    name=NAME,
    version="1.0.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/segment.launch.py"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="OWNER",
    maintainer_email="maintainers@users.noreply.github.com",
    description="Semantic segmentation and depth of camera images with RefineNet",
    license="BSD-3-Clause",
    entry_points={"console_scripts": [f"segment = {NAME}.node:main"]},
)
