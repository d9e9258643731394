"""Finished runs side by side: reading them, grouping them by settings, differences class by class, the page."""
