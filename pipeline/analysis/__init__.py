"""What cached features tell of the data, the trunk and what to train."""
