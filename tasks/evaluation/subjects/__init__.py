"""What the instruments ask: a model of the line, a checkpoint of transformers, or an endpoint."""
