"""Operations, one a file: a public function and the plain-torch reference that defines it."""
