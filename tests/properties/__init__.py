"""What holds for every sequence of requests, tried on sequences that Hypothesis makes up."""
