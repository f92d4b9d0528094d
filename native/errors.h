// What the functions that Java calls return; Native.scala has the words.
#pragma once

enum { SOLVED, NOT_POSITIVE_DEFINITE, NO_MEMORY };
