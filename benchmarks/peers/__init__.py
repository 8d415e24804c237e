"""Other programs of the field on the same work: installed apart, run apart, judged by one evaluator."""
