"""Files in and out: image stacks and tilt angles of every format users have, errors that say what to do."""
