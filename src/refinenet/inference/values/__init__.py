"""Files and pictures of depth, normals and other quantities. `subject` determines what a file shows, and how."""
