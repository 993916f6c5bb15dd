"""What leaves the workstation: files that run on the robot, without this package."""
