"""Times for the words of engines that have none."""
