"""Files and pictures of outputs of values: depths, normals, quantities. `subject` says what a file shows, and how."""
