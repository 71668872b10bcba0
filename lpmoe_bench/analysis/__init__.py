"""What records say together: intervals, comparisons, clean subsets."""
