"""RefineNet as a ROS 2 node. Start reading with `node.SegmentationNode`; `images` converts messages."""
